from collections.abc import Callable
from typing import Any

from tilekv.kvcore.batch.key_scan import FoundKeys

def key_lines(
    found: FoundKeys,
    before: bytes,
    after: bytes,
    plain: bytes,
    blobs: bool,
    other: Callable[[list[Any]], bytes],
) -> bytes: ...
