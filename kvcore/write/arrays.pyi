from collections.abc import Sequence
from typing import Any, final

import numpy.typing as npt

from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.format.tile import CellSource

@final
class ArrayCells(CellSource):
    def __new__(
        cls,
        layout: Layout,
        c0: npt.NDArray[Any],
        c1: npt.NDArray[Any],
        columns: Sequence[npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    ) -> ArrayCells: ...
    def __len__(self) -> int: ...
