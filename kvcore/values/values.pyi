from typing import Any, final

import numpy as np

@final
class Column:
    name: str
    field: int
    valid: int
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...] | None
    zone: bytes | None
    def __new__(
        cls,
        name: str,
        field: int,
        datatype: int,
        dtype: np.dtype[Any] | None,
        shape: tuple[int, ...] | None,
        valid: int = 0,
        zone: bytes | None = None,
    ) -> Column: ...
