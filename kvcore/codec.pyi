from typing import final

from typing_extensions import Buffer

@final
class CodecPool: ...

def encode(
    pipeline: bytes, element_size: int, signed: bool, integer: bool, raw: Buffer
) -> bytes: ...
def decode(
    pipeline: bytes,
    element_size: int,
    signed: bool,
    integer: bool,
    stored: Buffer,
    raw_size: int,
    checked: bool = True,
) -> bytes: ...
def windows(stored: bytes, raw_size: int) -> list[int]: ...
def check(stored: bytes) -> bool: ...
def rewritten(pipeline: bytes) -> bytes: ...
