from typing import final

@final
class Ties: ...
