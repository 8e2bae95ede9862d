from typing import final

@final
class Asked: ...
