from typing import final

from typing_extensions import Buffer

BLOCK_FILTERS: dict[int, int]

@final
class CodecPool: ...

def decode_block(compressor_code: int, data: Buffer, raw_size: int, element_size: int) -> bytes: ...
def ratio(
    pipeline: bytes, element_size: int, signed: bool, integer: bool, cell_size: int = 0
) -> int: ...
def block_ratio(compressor_code: int, element_size: int) -> int: ...
