from collections.abc import Callable, Iterable
from typing import final

from tilekv.kvcore.cache import ChunkCache
from tilekv.kvcore.codec import CodecPool
from tilekv.kvcore.fragment import Fragment
from tilekv.kvcore.layout import Layout

@final
class View:
    @property
    def tabled(self) -> bool: ...
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
    ) -> View: ...
