from collections.abc import Iterable
from typing import Final

DIGESTS: Final[dict[str, int]]
SIMD: Final[str]
SIMD_LEVELS: Final[tuple[str, ...]]

def digest(kind: int, key_type: int, key: bytes) -> bytes: ...
def coordinates(
    kind: int, keys: Iterable[tuple[int, bytes]], *, simd: str | None = None
) -> list[tuple[int, int]]: ...
def _coordinates_again(
    kind: int,
    keys: Iterable[tuple[int, bytes]],
    times: int,
    *,
    block: int = 256,
    simd: str | None = None,
) -> list[tuple[int, int]]: ...
def _clamp(half: int) -> int: ...
def _table_hash(key_type: int, key: bytes, secret: bytes | None = None) -> int: ...
