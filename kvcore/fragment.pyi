from collections.abc import Iterable
from typing import final

from tilekv.kvcore.cache import ChunkCache
from tilekv.kvcore.codec import CodecPool
from tilekv.kvcore.layout import Layout
from tilekv.kvcore.view import FileView

@final
class Fragment:
    @property
    def name(self) -> str: ...
    @property
    def cells(self) -> int: ...
    @property
    def tombstones(self) -> int: ...
    @property
    def t1(self) -> int: ...
    @property
    def t2(self) -> int: ...
    @property
    def uuid(self) -> bytes: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def files(self) -> tuple[str | None, ...]: ...
    def __new__(
        cls,
        layout: Layout,
        name: str,
        metadata: FileView,
        views: Iterable[FileView],
        cache: ChunkCache,
        codecs: CodecPool,
    ) -> Fragment: ...
    @property
    def stored_bytes(self) -> int: ...
    def size_of(self, slot: int) -> int: ...
