"""tilekv: an embedded, persistent, compressed key-value store.

>>> import tilekv
>>> with tilekv.open("memory://thumbs", "a") as db:
...     db["cat.jpg"] = b"..."
...     db["cat.jpg"]
b'...'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tilekv.config import Config
from tilekv.errors import (
    ClosedError,
    CorruptionError,
    FormatError,
    HistoryVacuumed,
    InvalidValueError,
    KeyNotFoundError,
    MissingPackageError,
    NotDurableError,
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
    BitShuffleFilter,
    BitWidthReductionFilter,
    ByteShuffleFilter,
    Bzip2Filter,
    ChecksumMD5Filter,
    ChecksumSHA256Filter,
    DoubleDeltaFilter,
    Filter,
    FilterList,
    GzipFilter,
    LZ4Filter,
    NoOpFilter,
    PositiveDeltaFilter,
    RleFilter,
    ZstdFilter,
)
from tilekv.kvcore.batch.results import Batch, VarColumn
from tilekv.kvcore.batch.scan import Scan
from tilekv.kvcore.values.keys import Key
from tilekv.schema import Attr, Schema
from tilekv.store import Store, open
from tilekv.tiledb.context import (
    TILEDB_AES_256_GCM,
    TILEDB_NO_ENCRYPTION,
    Context,
    Ctx,
    EncryptionType,
    TileDBError,
    default_ctx,
)
from tilekv.version import VERSION

if TYPE_CHECKING:
    from tilekv.frames.loading import from_arrow, from_pandas, from_polars, schema_of
    from tilekv.frames.reading import from_csv, from_parquet
    from tilekv.memoizing import Memoized, memoize
    from tilekv.moving.importing import Imported, import_from
    from tilekv.tiledb.encoding import NotTextError
    from tilekv.tiledb.kv import KV
    from tilekv.tiledb.kvschema import KVSchema
    from tilekv.tiledb.map import TILEDB_READ, TILEDB_WRITE, Map, MapIter, QueryType
    from tilekv.tiledb.mapitem import MapItem
    from tilekv.tiledb.mapschema import Attribute, MapSchema
    from tilekv.tiledb.objects import (
        TILEDB_POSTORDER,
        TILEDB_PREORDER,
        Object,
        ObjectIter,
        WalkOrder,
        create_group,
        group_create,
        ls,
        move,
        object_type,
        remove,
        walk,
    )
    from tilekv.tools.attributes import append_attr
    from tilekv.tools.backups import Backup, backup
    from tilekv.tools.convert import convert
    from tilekv.tools.info import Info
    from tilekv.tools.parallel import consolidate
    from tilekv.tools.problem import Problem
    from tilekv.tools.salvage import Salvage, salvage
    from tilekv.tools.verify import verify
    from tilekv.upkeeping import Upkept

__version__ = VERSION

__all__ = [
    "KV",
    "TILEDB_AES_256_GCM",
    "TILEDB_NO_ENCRYPTION",
    "TILEDB_POSTORDER",
    "TILEDB_PREORDER",
    "TILEDB_READ",
    "TILEDB_WRITE",
    "Attr",
    "Attribute",
    "Backup",
    "Batch",
    "BitShuffleFilter",
    "BitWidthReductionFilter",
    "ByteShuffleFilter",
    "Bzip2Filter",
    "ChecksumMD5Filter",
    "ChecksumSHA256Filter",
    "ClosedError",
    "Config",
    "Context",
    "CorruptionError",
    "Ctx",
    "DoubleDeltaFilter",
    "EncryptionType",
    "Filter",
    "FilterList",
    "FormatError",
    "GzipFilter",
    "HistoryVacuumed",
    "Imported",
    "Info",
    "InvalidValueError",
    "KVSchema",
    "Key",
    "KeyNotFoundError",
    "LZ4Filter",
    "Map",
    "MapItem",
    "MapIter",
    "MapSchema",
    "Memoized",
    "MissingPackageError",
    "NoOpFilter",
    "NotDurableError",
    "NotTextError",
    "Object",
    "ObjectIter",
    "OutOfRangeError",
    "PositiveDeltaFilter",
    "Problem",
    "QueryType",
    "ReadOnlyError",
    "RleFilter",
    "Salvage",
    "Scan",
    "Schema",
    "SnapshotGone",
    "Store",
    "StoreBusyError",
    "StoreExistsError",
    "StoreNotFoundError",
    "StoreReplacedError",
    "TileDBError",
    "TileKVError",
    "Upkept",
    "VarColumn",
    "WalkOrder",
    "WrongTypeError",
    "ZstdFilter",
    "append_attr",
    "backup",
    "consolidate",
    "convert",
    "create_group",
    "default_ctx",
    "from_arrow",
    "from_csv",
    "from_pandas",
    "from_parquet",
    "from_polars",
    "group_create",
    "import_from",
    "ls",
    "memoize",
    "move",
    "object_type",
    "open",
    "remove",
    "salvage",
    "schema_of",
    "verify",
    "walk",
]

# The faces of TileDB and what looks at a whole store: imported when one of these names is first used (docs/design.md 9.4).
_WHEN_USED = {
    "tilekv.frames.loading": ("from_arrow", "from_pandas", "from_polars", "schema_of"),
    "tilekv.frames.reading": ("from_csv", "from_parquet"),
    "tilekv.memoizing": ("Memoized", "memoize"),
    "tilekv.moving.importing": ("Imported", "import_from"),
    "tilekv.tiledb.encoding": ("NotTextError",),
    "tilekv.tiledb.kv": ("KV",),
    "tilekv.tiledb.kvschema": ("KVSchema",),
    "tilekv.tiledb.map": ("TILEDB_READ", "TILEDB_WRITE", "Map", "MapIter", "QueryType"),
    "tilekv.tiledb.mapitem": ("MapItem",),
    "tilekv.tiledb.mapschema": ("Attribute", "MapSchema"),
    "tilekv.tiledb.objects": (
        "TILEDB_POSTORDER",
        "TILEDB_PREORDER",
        "Object",
        "ObjectIter",
        "WalkOrder",
        "create_group",
        "group_create",
        "ls",
        "move",
        "object_type",
        "remove",
        "walk",
    ),
    "tilekv.tools.backups": ("Backup", "backup"),
    "tilekv.tools.attributes": ("append_attr",),
    "tilekv.tools.convert": ("convert",),
    "tilekv.tools.info": ("Info",),
    "tilekv.tools.parallel": ("consolidate",),
    "tilekv.tools.problem": ("Problem",),
    "tilekv.tools.salvage": ("Salvage", "salvage"),
    "tilekv.tools.verify": ("verify",),
    "tilekv.upkeeping": ("Upkept",),
}
_MODULE_OF = {name: module for module, names in _WHEN_USED.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _MODULE_OF.keys())
