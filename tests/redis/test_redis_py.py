"""redis-py's own tests, from its sdist, on a served store: what `expected.txt` says of each test that Redis 7.0.15 passes.

`expected.txt` has a line for each of them: `pass`, or why it is left out. One that is marked as passing and fails, or is not
marked and passes, fails the run; so does one that was left out and passes, since then its line is wrong.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from redis_process import Process

CLIENTS = Path(sys.prefix, "clients")
FILES = ["commands", "pipeline", "encoding", "lock", "pubsub", "connection_pool"]
MARKS = "not redismod and not onlycluster and not ssl and not cp_integration"
EXPECTED = Path(__file__).with_name("expected.txt")
LINE = re.compile(r"(?P<test>\S+) (?P<mark>pass|left out: .+)")


def expected() -> dict[str, bool]:
    """By test, whether it passes."""
    found = {}
    for line in EXPECTED.read_text().splitlines():
        if line and not line.startswith("#"):
            parts = LINE.fullmatch(line)
            assert parts, line
            found[parts["test"]] = parts["mark"] == "pass"
    return found


def outcomes(text: str) -> dict[str, bool]:
    """By test, whether it has passed; those that were skipped are left out."""
    found: dict[str, bool] = {}
    for word, test in re.findall(r"^(PASSED|FAILED|ERROR) tests/(\S+)", text, re.MULTILINE):
        found[test] = word == "PASSED" and found.get(test, True)
    return found


def test_of_redis_py(ours: Process, tmp_path: Path) -> None:
    (sdist,) = CLIENTS.glob("redis-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / sdist.name.removesuffix(".tar.gz")
    command = [
        *(str(CLIENTS / "bin" / "python"), "-m", "pytest", "-q", "-rA", "--tb=no", "--timeout=5"),
        # Of the test alone: an alarm while pytest writes of a failure would end all of it.
        *("-o", "timeout_func_only=true"),
        *("-p", "no:cacheprovider", "--redis-url", f"redis://localhost:{ours.port}/9", "-m", MARKS),
        *(f"tests/test_{name}.py" for name in FILES),
    ]
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    got, wanted = outcomes(done.stdout), expected()
    assert len(got) > 600, done.stdout[-3000:] + done.stderr[-3000:]
    wrong = {
        test: "fails" if passes else "passes, and is left out"
        for test, passes in wanted.items()
        if got.get(test, False) != passes
    }
    unmarked = [test for test, passed in got.items() if passed and test not in wanted]
    print(f"{sum(wanted.values())} of {len(wanted)} tests that Redis passes pass")
    assert (wrong, unmarked) == ({}, [])
