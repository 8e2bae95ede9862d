from typing import final

from tilekv.kvcore.format.layout import Layout

@final
class Metadata:
    def __new__(cls, layout: Layout) -> Metadata: ...

def trailer(uuid: bytes, slot: int) -> bytes: ...
