from typing import Any

from tilekv.kvcore.fragment import Fragment

def proven_keys(fragment: Fragment, tile: int) -> tuple[list[Any], list[Any], int]: ...
