"""What `test_killed` kills: python killed_worker.py OPERATION URI OPTIONS, options as JSON."""

import json
import sys
from collections.abc import Callable

import tilekv

OFF = {"kv.upkeep": "off"}


def main(operation: str, uri: str, options: str) -> None:
    given = json.loads(options)
    what, _, name = operation.partition(" ")
    if what == "create":
        schema = tilekv.Schema([tilekv.Attr(name, "int64")]) if name else None
        try:
            tilekv.open(uri, "x", schema=schema, storage_options=given).close()
        except tilekv.StoreExistsError:
            sys.exit(3)
        return
    with tilekv.open(uri, "a", config=OFF, storage_options=given) as db:
        steps: dict[str, Callable[[], object]] = {
            "flush": db.flush,
            "consolidate": db.consolidate,
            "vacuum": db.vacuum,
        }
        if operation == "flush":
            db["new"] = b"1"
        steps[operation]()


if __name__ == "__main__":
    main(*sys.argv[1:])
