from typing import Any, Final

import numpy as np

ROWS: Final[tuple[tuple[str, int, str | None, str], ...]]
INTEGER_KINDS: Final[tuple[str, ...]]
DTYPES: Final[dict[int, np.dtype[Any]]]
CODES: Final[dict[str, int]]
