from typing import final

@final
class SortedCells: ...
