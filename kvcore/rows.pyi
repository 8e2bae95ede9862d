from collections.abc import Iterator

from tilekv.kvcore.feeds import Cells

def aligned(runs: list[list[Cells]]) -> Iterator[list[Cells]]: ...
