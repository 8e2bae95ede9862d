from collections.abc import Iterable
from typing import Final

DIGESTS: Final[dict[str, int]]
SIMD: Final[str]
SIMD_LEVELS: Final[tuple[str, ...]]

def coordinates(
    kind: int, keys: Iterable[tuple[int, bytes]], *, simd: str | None = None
) -> list[tuple[int, int]]: ...
