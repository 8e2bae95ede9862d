from typing import final

@final
class Rows: ...
