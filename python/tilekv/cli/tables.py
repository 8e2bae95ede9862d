"""Parquet and CSV files into stores, and back."""

from __future__ import annotations

from tilekv.cli.options import Opening
from tilekv.cli.text import counted
from tilekv.errors import InvalidValueError
from tilekv.frames.reading import from_csv, from_parquet
from tilekv.schema import Attr


def load_table(file: str, uri: str, key: str, shown: bool, opening: Opening) -> int:
    """Make a store of a file, by the ending of its name; say what its attributes are.

    Returns
    -------
    int
        The exit code, 0.
    """
    make = from_parquet if _is_parquet(file) else from_csv
    with make(
        uri,
        file,
        key,
        config=opening.config,
        progress=shown,
        storage_options=opening.storage_options,
    ) as db:
        for attr in db.schema.attrs:
            print(f"{attr.name}: {_type(attr)}")
        print(f"{counted(len(db), 'row')}, by {key}")
    return 0


def unload_table(uri: str, file: str, shown: bool, opening: Opening) -> int:
    """Write all rows to a file, by the ending of its name.

    Returns
    -------
    int
        The exit code, 0.
    """
    parquet = _is_parquet(file)
    with opening.to_read(uri) as db:
        (db.to_parquet if parquet else db.to_csv)(file, progress=shown)
        print(counted(len(db), "row"))
    return 0


def _is_parquet(file: str) -> bool:
    ending = file.rpartition(".")[2].lower()
    if ending not in ("parquet", "csv"):
        raise InvalidValueError(f"{file} is neither a .parquet nor a .csv file, by its name")
    return ending == "parquet"


def _type(attr: Attr) -> str:
    form = " of any length" if attr.var and attr.dtype.kind not in "SU" else f" {attr.shape or ''}"
    return f"{attr.type_name}{form}".rstrip() + (", may be null" if attr.nullable else "")
