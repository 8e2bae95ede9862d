"""Django's RedisCache, django-redis, and sessions in a cache."""

import sys
import time

import django
from django.conf import settings

URL = f"redis://127.0.0.1:{sys.argv[1]}/"
settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"{URL}2",
        },
        "other": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{URL}3"},
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.sessions"],
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import caches  # noqa: E402

for name in ("default", "other"):
    c = caches[name]
    c.clear()
    c.set("k", {"a": [1, 2]}, 30)
    assert c.get("k") == {"a": [1, 2]}
    assert c.add("k", 1) is False
    assert c.add("new", 1) is True
    c.set("i", 5)
    assert (c.incr("i"), c.incr("i", 10), c.decr("i")) == (6, 16, 15)
    try:
        c.incr("none")
    except ValueError:
        pass
    else:
        raise AssertionError("there is nothing to add to")
    assert not c.set_many({"x": 1, "y": b"2", "é": "é"}, 10)
    assert c.get_many(["x", "y", "z", "é"]) == {"x": 1, "y": b"2", "é": "é"}
    assert c.touch("x", 100)
    assert not c.touch("none", 100)
    c.delete_many(["x", "y"])
    assert c.get("x", "default") == "default"
    assert c.has_key("k")
    assert "k" in c
    assert c.get_or_set("g", lambda: 9, 5) == 9
    assert c.get_or_set("g", lambda: 10, 5) == 9
    assert c.delete("k")
    assert not c.delete("k")
    c.set("none", None)
    assert c.get("none", 1) is None
    c.set("soon", 1, 0.2 if name == "other" else 1)
    c.set("past", 1, 0)
    assert c.get("past") is None
    time.sleep(1.1)
    assert c.get("soon") is None
    c.set("versioned", 1, version=2)
    assert c.get("versioned") is None
    assert c.get("versioned", version=2) == 1
    assert c.incr_version("versioned", version=2) == 3

c = caches["other"]
c.set("t", 1, 100)
assert 90 < c.ttl("t") <= 100
assert c.persist("t")
assert c.ttl("t") is None
assert c.expire("t", 50)
assert "t" in c.keys("*")
assert "t" in list(c.iter_keys("*"))
with c.lock("lock", timeout=3):
    assert c.get("t") == 1
assert c.delete_pattern("*")
assert c.keys("*") == []

session = SessionStore()
session["user"] = 7
session.save()
assert SessionStore(session.session_key)["user"] == 7
session.cycle_key()
session.delete()
assert "user" not in SessionStore(session.session_key)
