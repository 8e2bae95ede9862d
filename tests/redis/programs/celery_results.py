"""Celery's result backend: results that are kept, and those that somebody waits for."""

import sys
import threading
import time

from celery import Celery, group
from celery.result import AsyncResult

app = Celery("t", backend=f"redis://127.0.0.1:{sys.argv[1]}/8", broker="memory://")
app.conf.worker_hijack_root_logger = False


@app.task
def add(a: int, b: int) -> int:
    return a + b


app.backend.store_result("id1", {"x": 1}, "SUCCESS")
assert app.backend.get_result("id1") == {"x": 1}
app.backend.forget("id1")
assert app.backend.get_state("id1") == "PENDING"


def later() -> None:
    time.sleep(0.3)
    app.backend.store_result("id2", 42, "SUCCESS")


threading.Thread(target=later).start()
assert AsyncResult("id2", app=app).get(timeout=10) == 42

from celery.contrib.testing.worker import start_worker  # noqa: E402

with start_worker(app, perform_ping_check=False, pool="solo"):
    assert add.delay(2, 3).get(timeout=20) == 5
    assert group(add.s(i, i) for i in range(4))().get(timeout=20) == [0, 2, 4, 6]
