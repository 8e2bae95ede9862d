"""tilekv: an embedded, persistent, compressed key-value store.

>>> import tilekv
>>> with tilekv.open("memory://thumbs", "a") as db:
...     db["cat.jpg"] = b"..."
...     db["cat.jpg"]
b'...'
"""

from importlib.metadata import version as _version

from tilekv.config import Config
from tilekv.errors import (
    ClosedError,
    CorruptionError,
    FormatError,
    HistoryVacuumed,
    InvalidValueError,
    KeyNotFoundError,
    OutOfRangeError,
    ReadOnlyError,
    SnapshotGone,
    StoreBusyError,
    StoreExistsError,
    StoreNotFoundError,
    StoreReplacedError,
    TileKVError,
    WrongTypeError,
)
from tilekv.filters import (
    BitWidthReductionFilter,
    Filter,
    FilterList,
    LZ4Filter,
    NoOpFilter,
    ZstdFilter,
)
from tilekv.info import Info
from tilekv.kvcore.columns import Batch, VarColumn
from tilekv.kvcore.values import Key
from tilekv.schema import Attr, Schema
from tilekv.store import Store, open
from tilekv.verify import Problem

__version__ = _version("tilekv")

__all__ = [
    "Attr",
    "Batch",
    "BitWidthReductionFilter",
    "ClosedError",
    "Config",
    "CorruptionError",
    "Filter",
    "FilterList",
    "FormatError",
    "HistoryVacuumed",
    "Info",
    "InvalidValueError",
    "Key",
    "KeyNotFoundError",
    "LZ4Filter",
    "NoOpFilter",
    "OutOfRangeError",
    "Problem",
    "ReadOnlyError",
    "Schema",
    "SnapshotGone",
    "Store",
    "StoreBusyError",
    "StoreExistsError",
    "StoreNotFoundError",
    "StoreReplacedError",
    "TileKVError",
    "VarColumn",
    "WrongTypeError",
    "ZstdFilter",
    "open",
]
