from collections.abc import Iterable
from typing import final

from tilekv.kvcore.cache import ChunkCache
from tilekv.kvcore.codec import CodecPool
from tilekv.kvcore.fragment import Fragment
from tilekv.kvcore.layout import Layout

@final
class View:
    @property
    def fragments(self) -> tuple[Fragment, ...]: ...
    def __new__(
        cls,
        layout: Layout,
        cache: ChunkCache,
        codecs: CodecPool,
        fragments: Iterable[Fragment],
    ) -> View: ...
