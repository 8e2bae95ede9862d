"""One module and one class a store, all behind the few methods of `Rival`.

A rival's own package is imported when it is used: what is not installed is left out of a run, and the run says so.
"""

from __future__ import annotations

from importlib import import_module

from bench.rivals.rival import NotOffered, Rival

# name -> module, in the order of the tables
MODULES = {
    "tilekv": "tilekv_store",
    "lmdb": "lmdb_store",
    "rocksdict": "rocksdict_store",
    "plyvel": "plyvel_store",
    "sqlite3": "sqlite3_store",
    "simd-r-drive": "simd_r_drive_store",
    "cdbx": "cdbx_store",
    "tkrzw": "tkrzw_store",
    "redis": "redis_store",
    "tiledb": "tiledb_store",
    "dict": "dict_store",
}


def rival(name: str) -> Rival:
    """Make the rival of a name.

    Raises
    ------
    ImportError
        When its package is not installed.
    NotOffered
        When something else that it needs is missing; the message says what, and how it is installed.
    """
    made = import_module(f"bench.rivals.{MODULES[name]}").STORE()
    assert isinstance(made, Rival)
    return made


__all__ = ["MODULES", "NotOffered", "Rival", "rival"]
