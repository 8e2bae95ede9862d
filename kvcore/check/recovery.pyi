from collections.abc import Iterable
from typing import Any, Final

from tilekv.kvcore.read.fragment import Fragment
from tilekv.kvcore.read.snapshot import Snapshot

ABSENT: Final = 0
SET: Final = 1
DELETED: Final = 2
UNKNOWN: Final = 3

def proven_keys(fragment: Fragment, tile: int) -> tuple[list[Any], list[Any], int]: ...
def states(snapshot: Snapshot, keys: Iterable[Any]) -> bytes: ...
