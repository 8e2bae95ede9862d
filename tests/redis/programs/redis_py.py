"""redis-py as its users have it: both protocols, pipelines, transactions, locks, scan_iter, publish and subscribe, asyncio."""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

PORT = int(sys.argv[1])
for protocol in (2, 3):
    r = redis.Redis(port=PORT, protocol=protocol, db=1)
    r.flushdb()
    assert r.set("a", b"\x00\xff", ex=10)
    assert r.get("a") == b"\x00\xff"
    assert 0 < r.ttl("a") <= 10
    p = r.pipeline()
    p.incr("n")
    p.get("a")
    p.mget(["a", "z"])
    assert p.execute() == [1, b"\x00\xff", [b"\x00\xff", None]]

    with r.lock("L", timeout=5) as lock:
        assert r.exists("L")
        assert not r.lock("L", blocking=False).acquire()
        assert lock.extend(20)
        assert r.ttl("L") > 10
        assert lock.reacquire()
    assert not r.exists("L")

    def add(p: redis.client.Pipeline) -> None:
        number = int(p.get("n"))
        p.multi()
        p.set("n", number + 1)

    threads = [threading.Thread(target=r.transaction, args=(add, "n")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert r.get("n") == b"9"

    r.mset({f"k{i}": i for i in range(1000)})
    assert len(set(r.scan_iter("k*", count=100))) == 1000
    assert r.dbsize() == 1002
    listener = r.pubsub()
    listener.subscribe("c")
    listener.psubscribe("d*")
    time.sleep(0.05)
    assert (r.publish("c", "1"), r.publish("d1", "2"), r.publish("e", "3")) == (1, 1, 0)
    found = []
    while len(found) < 2:
        message = listener.get_message(ignore_subscribe_messages=True, timeout=1)
        if message:
            found.append(message["data"])
    assert found == [b"1", b"2"]
    listener.close()
    refused = ""
    try:
        r.lpush("list", 1)
    except redis.ResponseError as error:
        refused = str(error)
    assert "unknown command" in refused, "lists are not served"


async def main() -> None:
    r = redis.asyncio.Redis(port=PORT, db=1)
    await r.set("x", "1")
    assert set(await asyncio.gather(*[r.get("x") for _ in range(50)])) == {b"1"}
    async with r.pipeline(transaction=True) as p:
        assert await p.incr("x").incr("x").execute() == [2, 3]
    async with r.lock("M", timeout=5):
        assert await r.exists("M")
    await r.aclose()


asyncio.run(main())
