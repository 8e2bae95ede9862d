from typing_extensions import Buffer

def decode(
    pipeline: bytes,
    element_size: int,
    signed: bool,
    integer: bool,
    stored: Buffer,
    raw_size: int,
    checked: bool = True,
    cell_size: int = 0,
) -> bytes: ...
