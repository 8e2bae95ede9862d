"""Programs with clients of Redis, as their users have them, on a served store: they run, and fail where they should."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilekv
from redis_process import Process, tilekv_server
from redis_server import over_tcp

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]
CLIENTS = Path(sys.prefix, "clients", "bin", "python")


def run(program: str, *arguments: object) -> None:
    command = [str(CLIENTS), "-P", str(PROGRAMS / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "program", ["redis_py.py", "django_caches.py", "caches.py", "celery_results.py"]
)
def test_program(ours: Process, program: str) -> None:
    run(program, ours.port)


def test_the_page_of_django_and_flask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of it, on one server: then what reads the store from Python."""
    page = (ROOT / "docs" / "web.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    server = tilekv_server(tmp_path)
    try:
        run("page.py", server.port, *blocks[:3])
        with over_tcp(server.port) as ask:
            assert ask("SAVE") == "OK"
        monkeypatch.chdir(tmp_path)
        exec(blocks[3].replace("cache.kv", "store.kv"), {})
    finally:
        server.stop()


@pytest.mark.skipif(not os.environ.get("TILEKV_NIGHTLY"), reason="npm installs them: nightly")
def test_clients_of_node(ours: Process, tmp_path: Path) -> None:
    """ioredis and node-redis, as their lock file pins them."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm")
    shutil.copytree(PROGRAMS / "node", tmp_path / "node")
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    for command in (install, ["node", "clients.js", str(ours.port)]):
        done = subprocess.run(
            command,
            cwd=tmp_path / "node",
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def test_an_image_is_kept_and_python_reads_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    server = tilekv_server(tmp_path)
    run("images.py", server.port, tmp_path / "image.png")
    server.stop()
    with tilekv.open(tmp_path / "store.kv") as db:
        assert db["unique_image_key"].startswith(b"\x89PNG")


def test_djangos_own_tests_of_its_redis_cache(ours: Process, tmp_path: Path) -> None:
    (sdist,) = CLIENTS.parents[1].glob("django-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("django-*")
    command = [str(CLIENTS), "runtests.py", "--settings=django_settings", "--parallel=1"]
    environment = {"REDIS_PORT": str(ours.port), "PYTHONPATH": f"{PROGRAMS}:{folder}"}
    done = subprocess.run(
        [*command, "cache.tests.RedisCacheTests"],
        cwd=folder / "tests",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Ran 62 tests" in done.stderr


def cli(port: int, *words: str, data: bytes | None = None) -> str:
    command = ["redis-cli", "-p", str(port), *words]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


def test_redis_cli(ours: Process) -> None:
    cli(ours.port, "flushall")
    assert cli(ours.port, "set", "a", "1") == "OK\n"
    assert "proto 3\n" in cli(ours.port, "-3", "hello", "3")
    assert cli(ours.port, "-x", "set", "blob", data=b"\0\xff") == "OK\n"
    assert cli(ours.port, "strlen", "blob") == "2\n"
    assert sorted(cli(ours.port, "--scan", "--pattern", "*").split()) == ["a", "blob"]
    assert "errors: 0" in cli(ours.port, "--pipe", data=b"SET x 1\r\nSET y 2\r\n")
    assert cli(ours.port, "mget", "x", "y") == "1\n2\n"
    assert "redis_version:7" in cli(ours.port, "info", "server")
    assert "lpush" in cli(ours.port, "lpush", "l", "1")


def test_redis_benchmark(ours: Process) -> None:
    for pipelined in ("1", "16"):
        command = [
            "redis-benchmark",
            "-p",
            str(ours.port),
            "-n",
            "5000",
            "-P",
            pipelined,
            "-q",
            "-t",
            "ping,set,get,incr,mset",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.count("requests per second") == 6
        assert "rror" not in done.stdout


def test_the_bench_runs() -> None:
    command = [sys.executable, "-m", "bench", "redis", "--tiny"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    there = platform.machine() == "x86_64"  # valkey: see requirements.txt
    assert [done.stdout.count(f"| {name} ") for name in ("tilekv", "redis", "valkey")] == [
        18,
        18,
        18 * there,
    ]
