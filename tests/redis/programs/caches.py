"""Flask-Caching, cachelib, aiocache with its lock, dogpile.cache."""

import asyncio
import sys

from aiocache import RedisCache as AioCache
from aiocache.lock import OptimisticLock, RedLock
from cachelib import RedisCache
from dogpile.cache import make_region
from flask import Flask
from flask_caching import Cache

PORT = int(sys.argv[1])

app = Flask("x")
app.config.update(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=f"redis://127.0.0.1:{PORT}/4")
cache = Cache(app)
with app.app_context():
    cache.clear()
    cache.set("a", [1], timeout=5)
    assert cache.get("a") == [1]
    cache.set_many({"b": 1, "c": 2})
    assert cache.get_many("b", "c") == [1, 2]
    assert not cache.add("a", 2)
    cache.delete_many("b", "c")
    assert not cache.has("b")
    calls = []

    @cache.memoize(60)
    def twice(x: int) -> int:
        calls.append(x)
        return 2 * x

    assert (twice(2), twice(2), len(calls)) == (4, 4, 1)
    cache.delete_memoized(twice)
    assert (twice(2), len(calls)) == (4, 2)
    cache.clear()
    assert not cache.has("a")

simple = RedisCache("127.0.0.1", PORT, db=5)
simple.clear()
assert simple.set("q", (1,), 5)
assert simple.get("q") == (1,)
assert simple.get_dict("q", "none") == {"q": (1,), "none": None}
assert (simple.inc("z", 2), simple.dec("z")) == (2, 1)
assert simple.delete_many("q")
assert not simple.has("q")
prefixed = RedisCache("127.0.0.1", PORT, db=5, key_prefix="p:")
prefixed.set("a", 1)
prefixed.clear()
assert (prefixed.has("a"), simple.has("z")) == (False, True)


async def main() -> None:
    c = AioCache(endpoint="127.0.0.1", port=PORT, db=6)
    await c.clear()
    await c.set("k", "v", ttl=5)
    assert await c.get("k") == "v"
    await c.multi_set([("a", "1"), ("b", "2")])
    assert await c.multi_get(["a", "b", "c"]) == ["1", "2", None]
    assert await c.increment("n", 3) == 3
    assert await c.exists("k")
    assert await c.expire("k", 9)
    assert await c.delete("k") == 1
    assert await c.add("k2", "1")
    async with RedLock(c, "k3", lease=2):
        assert await c.exists("k3-lock")
    async with OptimisticLock(c, "a") as lock:
        await lock.cas("changed")
    assert await c.get("a") == "changed"
    await c.clear()
    assert not await c.exists("a")
    await c.close()


asyncio.run(main())

region = make_region().configure(
    "dogpile.cache.redis",
    expiration_time=10,
    arguments={
        "host": "127.0.0.1",
        "port": PORT,
        "db": 7,
        "redis_expiration_time": 20,
        "distributed_lock": True,
    },
)
assert region.get_or_create("k", lambda: 5) == 5
assert region.get_or_create("k", lambda: 6) == 5
region.set_multi({"a": 1, "b": 2})
assert region.get_multi(["a", "b"]) == [1, 2]
region.delete("k")
assert region.get_or_create("k", lambda: 6) == 6
