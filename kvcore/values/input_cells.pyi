from typing import final

@final
class Cells:
    def __len__(self) -> int: ...
