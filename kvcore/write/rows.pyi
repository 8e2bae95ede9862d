from collections.abc import Iterator

from tilekv.kvcore.values.input_cells import Cells

def aligned(runs: list[list[Cells]]) -> Iterator[list[Cells]]: ...
