from typing import Final, final

DTYPE_KEY: Final[bytes]
KEY_TYPE_KEY: Final[bytes]

@final
class Node: ...

@final
class Stream: ...
