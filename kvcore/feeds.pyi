from typing import final

@final
class Cells:
    def __len__(self) -> int: ...

@final
class ArrowTypes: ...

@final
class ArrowChunk: ...

@final
class ArrowReader:
    @property
    def types(self) -> ArrowTypes: ...
