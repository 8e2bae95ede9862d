from typing import final

@final
class ArrowTypes: ...

@final
class ArrowChunk: ...

@final
class ArrowReader:
    @property
    def types(self) -> ArrowTypes: ...
