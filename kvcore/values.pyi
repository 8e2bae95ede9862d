from typing import Any, Final, final

import numpy as np

from tilekv.errors import KeyNotFoundError

CODES: Final[dict[str, int]]
DTYPES: Final[dict[int, np.dtype[Any]]]

class Key:
    type: int
    data: bytes
    def __init__(self, type: int, data: bytes) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Column:
    name: str
    field: int
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    def __new__(
        cls,
        name: str,
        field: int,
        datatype: int,
        dtype: np.dtype[Any] | None,
        shape: tuple[int, ...] | None,
    ) -> Column: ...

def key_not_found(key: object) -> KeyNotFoundError: ...
def key_bytes(key: object) -> tuple[int, bytes]: ...
def key_object(type: int, data: bytes) -> Any: ...
