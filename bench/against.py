"""Two builds of tilekv side by side: `python -m bench --against WHEEL`.

The installed build and another one have a process each, and take turns: what else the machine does hits both. Printed are the
processor's time a key, and the instructions a key that callgrind counts, which repeat within 0.1 % on a busy machine too.

Both builds are copied into folders of one length, and come first on the path of their process; all else (Python, NumPy) is
the same. Callgrind is switched on by the process itself around each measured call (callgrind_switch.c, which gcc compiles
first). A function named to `--toggle-collect` would need nothing compiled, but callgrind does not see a function that
ctypes calls; and the difference of runs with N and 2N calls would take two runs an operation, each with all imports.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import report
from bench.one_build import OPERATIONS

ROOT = Path(__file__).parents[1]
SWITCH = Path(__file__).with_name("callgrind_switch.c")
# Else glibc learns from what was freed before where a large block is to be, and so whether one that grows is copied.
FIXED_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "131072"}
COUNTED_KEYS = 20_000  # most: callgrind takes 50 times as long


@dataclass
class Build:
    """One build: `side` is its name in the tables and of its folder."""

    side: str
    origin: Path
    folder: Path
    version: str = ""
    times: dict[str, list[float]] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)

    def command(self, stores: str, *arguments: object) -> list[str]:
        """Of the process that runs its operations on stores in that folder."""
        folder = self.folder / stores
        folder.mkdir()
        return [sys.executable, "-P", "-m", "bench.one_build", str(folder), *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        """Its package first, then this one; no seed of hashes but one."""
        path = os.pathsep.join([str(self.folder), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


def installed() -> Path:
    """The folder that holds the installed tilekv."""
    spec = importlib.util.find_spec("tilekv")
    if spec is None or spec.origin is None:
        raise SystemExit("bench: tilekv is not installed here")
    return Path(spec.origin).parents[1]


def place_build(origin: Path, folder: Path) -> None:
    """Copy a build into a folder: out of a wheel, or out of the folder that an installation is in, or an environment."""
    folder.mkdir()
    if origin.suffix == ".whl":
        with zipfile.ZipFile(origin) as wheel:
            wheel.extractall(folder)
    else:
        places = [origin, *sorted(origin.glob("lib/python*/site-packages"))]
        for place in places:
            if (place / "tilekv" / "__init__.py").is_file():
                # Its metadata too: an older build reads its version there.
                for part in (place / "tilekv", *place.glob("tilekv-*.dist-info")):
                    shutil.copytree(part, folder / part.name)
                break
    if not (folder / "tilekv" / "__init__.py").is_file():
        raise SystemExit(f"bench: {origin} is no wheel of tilekv, and holds no installation of it")


class Timed:
    """A build's process, which runs an operation whenever it is asked to."""

    def __init__(self, build: Build, options: argparse.Namespace) -> None:
        self._process = subprocess.Popen(
            build.command("timed", options.keys, options.asked, options.seed),
            env=build.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.build = build

    def begin(self) -> None:
        """Wait until its data is there."""
        self.build.version, origin = self._answer()
        if not Path(origin).is_relative_to(self.build.folder):
            raise SystemExit(f"bench: {self.build.side} would be {origin}")

    def seconds(self, operation: str) -> float:
        """Seconds a key."""
        assert self._process.stdin is not None
        self._process.stdin.write(operation + "\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: the process of {self.build.side} has died, see above")
        return json.loads(line)

    def finish(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def take_times(builds: list[Build], options: argparse.Namespace) -> None:
    """All rounds, and one before them that does not count; who is first changes from round to round."""
    processes = [Timed(build, options) for build in builds]
    try:
        for process in processes:
            process.begin()
        for turn in range(options.rounds + 1):
            order = processes[:: 1 if turn % 2 else -1]
            for operation in OPERATIONS:
                for process in order:
                    seconds = process.seconds(operation)
                    if turn:
                        process.build.times.setdefault(operation, []).append(seconds)
    finally:
        for process in processes:
            process.finish()


def count_instructions(builds: list[Build], options: argparse.Namespace) -> str:
    """Both builds at once under callgrind; return why it could not be done, or ""."""
    library = builds[0].folder / "callgrind_switch.so"
    if problem := compile_switch(library):
        return problem
    keys, asked = min(options.keys, COUNTED_KEYS), min(options.asked, COUNTED_KEYS)
    running = []
    for build in builds:
        program = build.command("counted", keys, asked, options.seed, library)
        running.append(
            subprocess.Popen(
                [*callgrind(build.folder / "profile"), *program],
                env={**build.environment, **FIXED_MALLOC},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    try:
        outputs = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()  # those of a run that was ended from outside
    for build, process, output in zip(builds, running, outputs, strict=True):
        if process.returncode:
            raise SystemExit(f"bench: {build.side} failed under callgrind, see above")
        counts = json.loads(output)
        for number, operation in enumerate(OPERATIONS, 1):
            profile = build.folder / f"profile.{number}"
            build.instructions[operation] = total(profile) / counts[operation]
            if options.profiles:
                options.profiles.mkdir(parents=True, exist_ok=True)
                shutil.copy(profile, options.profiles / f"{build.side}.{operation}")
    return ""


def compile_switch(library: Path) -> str:
    """Make the library of callgrind's switches; return why it could not be done, or ""."""
    if shutil.which("valgrind") is None:
        return "not counted: valgrind is not installed"
    compiler = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SWITCH)]
    try:
        subprocess.run(compiler, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "not counted: gcc, or valgrind's headers, are not installed"
    return ""


def callgrind(profile: Path) -> list[str]:
    """What runs a program under callgrind, switched off at first; its profiles are `profile`.1 and so on."""
    options = ["--tool=callgrind", "--quiet", "--instr-atstart=no"]
    return [*_fixed_addresses(), "valgrind", *options, f"--callgrind-out-file={profile}"]


def _fixed_addresses() -> list[str]:
    """What switches the randomisation of addresses off; nothing where that is not allowed."""
    with contextlib.suppress(OSError):
        if (
            subprocess.run(["setarch", "-R", "true"], check=False, capture_output=True).returncode
            == 0
        ):
            return ["setarch", "-R"]
    return []


def total(profile: Path) -> int:
    """The instructions in a profile."""
    for line in profile.read_text().splitlines():
        if line.startswith(("totals:", "summary:")):
            return int(line.split()[1])
    raise SystemExit(f"bench: {profile.name} of callgrind has no total")


def ratios(builds: list[Build], kind: str) -> dict[str, float]:
    """By operation: how much more the first build takes, 1 being the same. Of times the median of the rounds' ratios."""
    first, second = builds
    if kind == "instructions":
        return {
            name: count / second.instructions[name] for name, count in first.instructions.items()
        }
    return {
        name: statistics.median(a / b for a, b in zip(times, second.times[name], strict=True))
        for name, times in first.times.items()
    }


def table(builds: list[Build], rounds: int, problem: str) -> list[str]:
    """What is printed."""
    head = "".join(f"{build.side:>28}" for build in builds) + f"{'ratio':>10}"
    lines = [f"{build.side:10}tilekv {build.version}, {build.origin}" for build in builds]
    lines += [
        "",
        f"processor time, ns a key: median of {rounds} rounds (least..most)",
        " " * 10 + head,
    ]
    for name, ratio in ratios(builds, "time").items():
        cells = []
        for build in builds:
            times = [1e9 * each for each in build.times[name]]
            spread = f"({min(times):,.1f}..{max(times):,.1f})"
            cells.append(f"{statistics.median(times):,.1f} {spread}")
        lines.append(f"{name:10}" + "".join(f"{cell:>28}" for cell in cells) + f"{ratio:10.3f}")
    if problem:
        return [*lines, "", f"instructions: {problem}"]
    lines += ["", "instructions a key, one thread", " " * 10 + head]
    for name, ratio in ratios(builds, "instructions").items():
        counts = "".join(f"{build.instructions[name]:28,.1f}" for build in builds)
        lines.append(f"{name:10}{counts}{ratio:10.4f}")
    return lines


def run(options: argparse.Namespace) -> int:
    """Measure and print; 1 when a bound that was asked for is not held."""
    with tempfile.TemporaryDirectory(prefix="tilekv-bench-") as temporary:
        builds = []
        for side, origin in (("installed", installed()), ("against", options.against.resolve())):
            build = Build(side, origin, Path(temporary, str(len(builds))))
            place_build(origin, build.folder)
            builds.append(build)
        take_times(builds, options)
        problem = count_instructions(builds, options)
    print("\n".join(table(builds, options.rounds, problem)))
    failures = []
    for kind, bound in (
        ("time", options.at_most_time),
        ("instructions", options.at_most_instructions),
    ):
        if bound is None:
            continue
        if kind == "instructions" and problem:
            failures.append(f"instructions were {problem}")
        failures += [
            f"{kind} of {name}: {ratio:.4f} is more than {bound}"
            for name, ratio in ratios(builds, kind).items()
            if ratio > bound
        ]
    for failure in failures:
        print(f"FAILED: {failure}")
    if options.json:
        record = {
            "when": report.now(),
            "machine": report.machine(),
            "seed": options.seed,
            "builds": {
                build.side: {
                    "version": build.version,
                    "origin": str(build.origin),
                    "seconds": build.times,
                    "instructions": build.instructions,
                }
                for build in builds
            },
            "ratios": {kind: ratios(builds, kind) for kind in ("time", "instructions")},
            "failures": failures,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if failures else 0
