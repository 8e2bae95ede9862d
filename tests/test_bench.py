"""A tiny run of the benchmarks: everything runs, is recorded and drawn, and a wrong answer is noticed. About 15 seconds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import tilekv

ROOT = Path(__file__).parents[1]
# Without Redis: its server is not for a test to install. TileDB takes 2 ms a look-up, and has a run of its own.
RIVALS = ["tilekv", "lmdb", "rocksdict", "sqlite3", "dict"]


def run(*arguments: str, code: int = 0, **environment: str) -> str:
    """Python on the benchmarks, which are no installed package; its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("bench")
    options = ["--tiny", "--sets", "sentence,packages", "--rivals", ",".join(RIVALS)]
    out = run("-m", "bench", *options, f"--json={folder / 'a.json'}", f"--svg={folder / 'a.svg'}")
    return json.loads((folder / "a.json").read_text()) | {"out": out, "svg": folder / "a.svg"}


def test_every_workload_runs(record) -> None:
    assert record["failures"] == []
    figures = record["figures"]["sentence"]
    units = record["units"]
    assert set(figures) == set(units) - {"attributes"}
    for workload, rounds in figures.items():
        assert len(rounds["tilekv"]) == 1, workload
        assert set(rounds) <= set(RIVALS)
        if units[workload] == "/s":
            assert all(one[0] > 0 for one in rounds.values()), workload
    for name in RIVALS:
        assert {"load", "get", "get_many", "items", "overwrite", "delete"} <= {
            workload for workload, rounds in figures.items() if name in rounds
        }
    assert set(figures["get_8MB"]) == {"tilekv", "rocksdict", "sqlite3"}
    assert 60 < figures["disk"]["tilekv"][0] < 120 < figures["disk"]["lmdb"][0]


def test_real_data(record) -> None:
    assert record["sets"]["packages"]["keys"] > 50
    figures = record["figures"]["packages"]
    assert set(figures["attributes"]) == set(RIVALS)
    assert figures["get_many"]["tilekv"][0] > 0


def test_goals_are_judged(record) -> None:
    goals = {row["goal"]: row for row in record["goals"] if row["data"] == "sentence"}
    disk = goals["disk / lmdb"]
    figures = record["figures"]["sentence"]["disk"]
    assert disk["median"] == figures["tilekv"][0] / figures["lmdb"][0]
    assert disk["met"] == (disk["median"] <= disk["bound"])
    assert goals["load / redis"]["met"] is None
    assert "not measured" in record["out"]


def test_record_and_picture(record) -> None:
    assert record["machine"]["cores"] >= 1
    assert record["commit"]
    assert record["rivals"]["lmdb"]["version"]
    text = "".join(ET.parse(record["svg"]).getroot().itertext())
    assert "2,000 keys" in text
    assert "load, durable" in text
    assert set(RIVALS) - {"tilekv"} <= set(text.split())


def test_tiledb() -> None:
    options = [
        "--sets",
        "sentence",
        "--rivals",
        "tilekv,tiledb",
        "--workloads",
        "load,get_many,read",
    ]
    out = run("-m", "bench", "--tiny", *options)
    assert "tiledb 0.36.1" in out
    assert "FAILED" not in out


def test_a_wrong_answer_is_no_figure(tmp_path) -> None:
    run(
        "-c",
        "import sys\n"
        "from pathlib import Path\n"
        "from bench.data import Source\n"
        "from bench.place import Options, Place\n"
        "from bench.workloads import WORKLOADS\n"
        "place = Place('dict', Path(sys.argv[1]), Options(10, 10))\n"
        "place.prepare(Source('sentence', 100))\n"
        "assert WORKLOADS['get_many'].run(place) > 0\n"
        "place.rival.table[place.data.asked[3]] = b''\n"
        "try:\n"
        "    WORKLOADS['get_many'].run(place)\n"
        "except AssertionError:\n"
        "    pass\n"
        "else:\n"
        "    raise SystemExit('taken for right')\n",
        str(tmp_path / "place"),
    )


def test_costs(tmp_path) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--svg={tmp_path / 'a.svg'}"]
    run("-m", "bench.costs", "--keys=2000", "--rounds=1", *files)
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["growth"]["fragments"]["at"] == [1, 2, 5, 10, 20]
    assert all(one > 0 for one in record["growth"]["keys"]["figures"]["get"])
    assert set(record["choices"]["default"].values()) == {1}
    assert record["choices"]["values plain"]["disk"] > 1.2
    text = "".join(ET.parse(tmp_path / "a.svg").getroot().itertext())
    assert all(axis in text for axis in ("keys", "value bytes", "fragments"))


def test_floor() -> None:
    out = run("-m", "bench.floor", "--keys=2000", "--rounds=1", "--idle=0")
    sizes = re.findall(r"^  (__key|value_var|all) +([\d.]+)$", out, re.MULTILINE)
    assert [name for name, _ in sizes] == ["__key", "value_var", "all"]
    assert float(sizes[1][1]) > 50  # bytes of a value that nothing makes smaller
    assert "writing" in out


def test_life() -> None:
    out = run("-m", "bench.life", "--tiny")
    header, *rows = re.findall(r"^ +(entries|[\d,]+)  +(\S.*)$", out, re.MULTILINE)
    assert header[1].split() == [
        "append",
        "seven",
        "files",
        "tilekv",
        "lmdb",
        "sqlite3",
        "rocksdict",
    ]
    assert [name for name, _ in rows] == ["1", "10", "100", "1,000"]
    figures = [re.findall(r"([\d.]+) \(", row) for _, row in rows]
    assert all(len(each) == 6 and all(float(one) > 0 for one in each) for each in figures)
    assert re.search(r"times LMDB's transaction: at most (4|1\.5): (met|NOT MET) \(", out)
    assert "a flush of 1: 9 syncs, 2 waits one after the other" in out
    assert "waits of a flush for the disk: at most 3: met (3)" in out
    puts = re.findall(r"^(.*?)  +([\d,]+) +([\d.]+) +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
    assert len(puts) == 4  # beside nothing, hashing, a flush and an automatic one
    for _, count, *waits in puts:
        assert int(count.replace(",", "")) > 0
        assert waits == sorted(waits, key=float)  # median, p99.9, longest
    assert out.count("met (") + out.count("MET (") == 4


def test_expiry() -> None:
    out = run("-m", "bench.expiry", "--keys=2000", "--asked=500", "--rounds=1")
    rows = re.findall(
        r"^(get|get_many|in|scan|len) +[\d.,]+ \(.*\) +[\d.,]+ \(.*\) +([\d.]+)", out, re.MULTILINE
    )
    assert [name for name, _ in rows] == ["get", "get_many", "in", "scan", "len"]
    assert all(float(ratio) > 0 for _, ratio in rows)


def test_imports() -> None:
    out = run("-m", "bench.imports", "--rounds=1")
    modules = dict(re.findall(r"^([a-z ]+?)  .* (\d+)$", out, re.MULTILINE))
    assert int(modules["import numpy"]) < int(modules["import tilekv"])
    assert int(modules["import tilekv"]) < int(modules["all public names"])
    assert "import tilekv within 40 ms of import numpy: " in out


def test_kernels() -> None:
    out = run("-m", "pytest", "bench/test_kernels.py", "-q", "--no-header", "--benchmark-disable")
    assert "18 passed" in out


OPERATIONS = {"get", "get_many", "put_many", "flush", "scan"}
INSTALLED = str(Path(tilekv.__file__).parents[1])


@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind, which counts")
def test_a_build_against_itself_takes_as_many_instructions(tmp_path) -> None:
    record, profiles = tmp_path / "a.json", tmp_path / "profiles"
    options = ["--tiny", "--against", INSTALLED, f"--json={record}", f"--profiles={profiles}"]
    out = run("-m", "bench", *options, "--at-most-instructions=1.005")
    assert "instructions a key" in out
    assert len(list(profiles.iterdir())) == 2 * len(OPERATIONS)
    ratios = json.loads(record.read_text())["ratios"]
    assert set(ratios["time"]) == set(ratios["instructions"]) == OPERATIONS
    assert all(abs(ratio - 1) < 0.005 for ratio in ratios["instructions"].values()), ratios
    builds = json.loads(record.read_text())["builds"]
    # A key costs less in a batch: what is counted is what it says.
    counts = builds["installed"]["instructions"]
    assert 50 < counts["scan"] < counts["get_many"] < counts["get"] < 10_000


def test_two_builds_take_turns(tmp_path) -> None:
    """Without valgrind; and a bound that is not held is a failure."""
    wheel = tmp_path / "tilekv.whl"
    shutil.make_archive(str(tmp_path / "made"), "zip", INSTALLED, "tilekv")
    (tmp_path / "made.zip").rename(wheel)
    bounds = ["--at-most-time=0", "--at-most-instructions=1.01"]
    options = ["--tiny", "--against", str(wheel), "--rounds=1", *bounds]
    out = run("-m", "bench", *options, code=1, PATH=str(tmp_path))
    assert "instructions: not counted: valgrind is not installed" in out
    assert re.search(r"^against +tilekv \S+, \S+tilekv.whl$", out, re.MULTILINE)
    failures = re.findall(r"^FAILED: (\w+) (?:of (\w+))?", out, re.MULTILINE)
    assert {name for kind, name in failures if kind == "time"} == OPERATIONS
    assert ("instructions", "") in failures


def test_what_is_no_build_is_refused(tmp_path) -> None:
    run("-m", "bench", "--tiny", "--against", str(tmp_path), code=1)
