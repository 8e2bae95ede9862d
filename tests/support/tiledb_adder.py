"""Has today's TileDB write a row into a store of one bytes attribute, and perhaps consolidate and vacuum it.

    python tiledb_adder.py STORE write|consolidate|vacuum|commits...

A program of its own, since whoever has imported tiledb must not fork.
"""

import sys

import numpy as np
import tiledb


def main(store: str, *steps: str) -> None:
    for step in steps:
        if step == "write":
            with tiledb.open(store, "w") as array:
                array[np.array([5], np.uint64), np.array([6], np.uint64)] = {
                    "__key": np.array([b"added"], object),
                    "value": np.array([b"v"], object),
                    "__key_type": np.array([b"\x04"], "S1"),
                }
        elif step == "consolidate":
            tiledb.consolidate(store)
        elif step == "vacuum":
            tiledb.vacuum(store)
        else:
            tiledb.consolidate(store, config=tiledb.Config({"sm.consolidation.mode": step}))
            tiledb.vacuum(store, config=tiledb.Config({"sm.vacuum.mode": step}))


if __name__ == "__main__":
    main(*sys.argv[1:])
