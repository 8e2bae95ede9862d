from typing import final

from tilekv.kvcore.format.layout import Layout

@final
class Buffer:
    layout: Layout
    n: int
    size: int
    def __new__(cls, layout: Layout) -> Buffer: ...
