"""What `test_cache` has other processes do: python cache_worker.py read URI OPTIONS, or fill FOLDER NUMBER."""

import json
import random
import sys

import tilekv
from tilekv.storage.blockcache import BLOCK, LEAST, BlockCache


def read(uri: str, options: str) -> None:
    """All of a store."""
    with tilekv.open(uri, storage_options=json.loads(options)) as db:
        dict(db.items())


def fill(folder: str, number: str) -> None:
    """Put as much into a cache as may be there, and look for it."""
    cache = BlockCache(folder, LEAST)
    data = random.Random(number).randbytes(BLOCK)
    for i in range(LEAST // BLOCK):
        cache.put(f"{number} {i}", data)
        found = cache.get(f"{number} {i // 2}", BLOCK)
        assert found is None or found == data


if __name__ == "__main__":
    {"read": read, "fill": fill}[sys.argv[1]](*sys.argv[2:])
