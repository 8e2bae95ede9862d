"""What TileDB shows of a store, as JSON: a program of its own, since whoever has imported tiledb must not fork.

    python tiledb_reader.py URI OUT [POINTS [CONDITION]]

URI is a store, POINTS a JSON file with a list of [c0, c1], CONDITION a query condition for "columns". OUT becomes {"columns":
{name: {"shown": type, "cells": [hex]}}, "points": [[hex of __key] for each point]}: cells in TileDB's order, a cell's bytes
little-endian. READER_CONFIG, in the environment, is what TileDB is told, as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiledb


def shown(column: np.ndarray[Any, Any]) -> str:
    """The type in which TileDB shows the column: one word, or several when its cells disagree."""
    if column.dtype.names:
        parts = [column.dtype[i] for i in range(len(column.dtype))]
        return f"{len(parts)} x {' and '.join(sorted({str(part) for part in parts}))}"
    if column.dtype != object:
        return str(column.dtype)
    words = {
        f"array of {cell.dtype}" if isinstance(cell, np.ndarray) else type(cell).__name__
        for cell in column
    }
    return " and ".join(sorted(words))


def var_bytes(cell: Any) -> bytes:
    if isinstance(cell, str):
        return cell.encode()
    return cell if isinstance(cell, bytes) else cell.tobytes()


def cell_bytes(column: np.ndarray[Any, Any]) -> list[bytes]:
    if column.dtype == object:
        return [var_bytes(cell) for cell in column]
    # The buffer, not the elements: S1 would show the key type 0 as an empty string.
    data = np.ascontiguousarray(column).tobytes()
    width = column.dtype.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


def main(uri: str, out: str, points: str | None = None, condition: str | None = None) -> None:
    asked = json.loads(Path(points).read_text()) if points else []
    config = json.loads(os.environ.get("READER_CONFIG", "{}"))
    with tiledb.open(uri, ctx=tiledb.Ctx(config)) as array:
        everything = array[:] if condition is None else array.query(cond=condition)[:]
        found = [array.multi_index[c0:c0, c1:c1]["__key"] for c0, c1 in asked]
    columns = {
        name: {"shown": shown(column), "cells": [cell.hex() for cell in cell_bytes(column)]}
        for name, column in everything.items()
    }
    keys = [[cell.hex() for cell in cell_bytes(column)] for column in found]
    Path(out).write_text(json.dumps({"columns": columns, "points": keys}))


if __name__ == "__main__":
    main(*sys.argv[1:])
