from collections.abc import Callable, Iterable
from typing import final

from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.format.layout import Layout
from tilekv.kvcore.read.fragment import Fragment

@final
class Snapshot:
    behind: Callable[[Snapshot], object] | None
    @property
    def indexed(self) -> bool: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def fragments(self) -> tuple[Fragment, ...]: ...
    @property
    def opened(self) -> dict[str, Fragment]: ...
    def __new__(
        cls,
        layout: Layout,
        cache: ChunkCache,
        codecs: CodecPool,
        fragments: Iterable[Fragment | str],
        open: Callable[[str], Fragment] | None = None,
        behind: Callable[[Snapshot], object] | None = None,
    ) -> Snapshot: ...
    def make_index(self) -> None: ...
