from collections.abc import Sequence

from typing_extensions import Buffer

def sorted_order(
    coordinates: Sequence[tuple[int, int]],
    keys: Sequence[tuple[int, bytes]],
    shares: int = 1,
) -> list[int]: ...
def first_not_below(values: Buffer, key: int) -> int: ...
