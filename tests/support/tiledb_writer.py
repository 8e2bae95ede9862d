"""Has TileDB write one-dimensional sparse arrays, as a program of its own, since whoever has imported tiledb must not fork.

    python tiledb_writer.py JOBS

JOBS is a JSON list of {"uri": folder, "attrs": [{"name", "dtype", "values", "var", "filters": [[class, {option: value}], ...],
"cells": [hex]}]}. A cell of a fixed-size attribute is `values` elements. Each array has one fragment and one tile.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiledb


def column(attr: dict[str, Any]) -> np.ndarray[Any, Any]:
    cells = [bytes.fromhex(cell) for cell in attr["cells"]]
    if not attr["var"]:
        dtype = np.dtype(",".join([attr["dtype"]] * attr["values"]))
        return np.frombuffer(b"".join(cells), dtype)
    found = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        found[i] = cell if attr["dtype"] == "S" else np.frombuffer(cell, attr["dtype"])
    return found


def main(jobs: str) -> None:
    for job in json.loads(Path(jobs).read_text()):
        n = len(job["attrs"][0]["cells"])
        domain = tiledb.Domain(tiledb.Dim("d", domain=(0, n), tile=n + 1, dtype=np.uint64))
        attrs = []
        for attr in job["attrs"]:
            dtype = np.dtype(",".join([attr["dtype"]] * attr["values"]))
            filters = [getattr(tiledb, name)(**options) for name, options in attr["filters"]]
            attrs.append(
                tiledb.Attr(attr["name"], dtype, attr["var"], filters=tiledb.FilterList(filters))
            )
        schema = tiledb.ArraySchema(
            domain, attrs, sparse=True, capacity=n, offsets_filters=tiledb.FilterList([])
        )
        tiledb.Array.create(job["uri"], schema)
        with tiledb.open(job["uri"], "w") as array:
            array[np.arange(n, dtype=np.uint64)] = {
                attr["name"]: column(attr) for attr in job["attrs"]
            }


if __name__ == "__main__":
    main(*sys.argv[1:])
