"""Fuzzes what reads bytes: `make fuzz SECONDS=600`, or a short run of a fixed length in the tests.

usage: python -m fuzzer [--short | --seconds S] [--seed N] [--only TARGET] [--keep] [INPUT ...]

Inputs are the targets' seeds, the kept corpus, and what mutations make of them, with checksums made right again. Where the
package is built with edges to be counted (`make fuzz`), an input that reaches new ones is mutated in its turn, and --keep makes
them the corpus, the smallest first. What is found stays in the file that is named: INPUT runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import hashlib
import mmap
import random
import resource
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fuzz_arrow import Arrows, Streams
from fuzz_requests import Requests
from fuzz_stores import STORES
from fuzz_targets import BYTES, Target

TARGETS = (*BYTES, *STORES, Arrows(), Streams(), Requests())
CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
SLOW = 10  # seconds of the processor for one input
LARGE = 256 << 20  # bytes of memory for one input
STUCK = 120  # seconds without a sign of life
KEPT = 60_000  # bytes of the corpus of a target


class Slot:
    """The input that runs now, in a file: a crash cannot take it along."""

    def __init__(self, room: int = 1 << 22) -> None:
        handle, name = tempfile.mkstemp(prefix="tilekv-fuzz-")
        self.path = Path(name)
        with open(handle, "r+b") as file:
            file.truncate(room)
            self.map = mmap.mmap(file.fileno(), room)

    def note(self, target: Target, data: bytes) -> None:
        self.map.seek(0)
        head = f"{target.name}\n{len(data)}\n".encode()
        if len(head) + len(data) <= len(self.map):
            self.map.write(head + data)


class Finding(Exception):
    """An input that did what none may do."""


def edge_counter() -> Callable[[], int] | None:
    """What counts edges that never ran before; None in a build without them."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "tkv_new_edges"):
        return None
    library.tkv_new_edges.restype = ctypes.c_size_t
    return library.tkv_new_edges  # type: ignore[no-any-return]


def peak() -> int:
    """Most bytes that this process ever held. Not ru_maxrss: a child keeps the peak of the process that started it."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Fuzzer:
    """One target, its inputs, and what they reached."""

    def __init__(self, target: Target, rng: random.Random, slot: Slot) -> None:
        self.target = target
        self.rng = rng
        self.slot = slot
        self.new_edges = edge_counter()
        self.inputs = [*target.seeds(), *kept(target)]
        self.executions = self.steps = self.found = 0

    def start(self) -> None:
        """Run what is there, so that only what is newer counts as new."""
        for data in self.inputs:
            self.execute(data)

    def step(self) -> None:
        """One more input."""
        self.steps += 1
        data = self.rng.choice(self.inputs)
        made = self.target.mutated(self.rng, data, self.rng.choice(self.inputs))
        if self.rng.random() < 0.9:
            made = self.target.sealed(made)
        if self.execute(made):
            self.found += 1
            self.inputs.append(made)

    def execute(self, data: bytes) -> int:
        """Run one input; how many edges it was the first to reach."""
        self.slot.note(self.target, data)
        self.executions += 1
        memory = peak()
        started = time.process_time()
        try:
            self.target.run(data)
        except self.target.refuses:
            pass
        except Exception as error:  # noqa: BLE001
            raise Finding("".join(traceback.format_exception(error))) from None
        if time.process_time() - started > SLOW:
            raise Finding(f"it took {time.process_time() - started:.0f} s")
        # What was freed stays for a while under AddressSanitizer, for 256 MB by itself.
        if peak() - memory > (4 * LARGE if self.new_edges else LARGE):
            raise Finding(f"it took {(peak() - memory) >> 20} MB")
        return self.new_edges() if self.new_edges else 0


def kept(target: Target) -> Iterator[bytes]:
    """The corpus of a target, the same order everywhere."""
    for path in sorted(CORPUS.joinpath(target.name.replace(" ", "-")).glob("*.z")):
        yield zlib.decompress(path.read_bytes())


def keep(fuzzer: Fuzzer) -> int:
    """Make what reached new edges the corpus, as much as has room, the smallest first; how many inputs that are."""
    folder = CORPUS / fuzzer.target.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.z"):
        path.unlink()
    seeds = {*fuzzer.target.seeds()}
    total = count = 0
    fresh = [data for data in fuzzer.inputs if data not in seeds]
    for data in sorted(fresh, key=len):
        stored = zlib.compress(data, 9)
        if total + len(stored) > KEPT:
            continue
        total += len(stored)
        count += 1
        folder.joinpath(hashlib.sha256(data).hexdigest()[:16] + ".z").write_bytes(stored)
    return count


def replay(path: Path) -> None:
    """Run an input that a run has left."""
    name, size, data = path.read_bytes().split(b"\n", 2)
    target = next(one for one in TARGETS if one.name == name.decode())
    try:
        target.run(data[: int(size)])
    except target.refuses as error:
        print(f"tilekv: {path} is refused as it should be: {error!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--short", action="store_true", help="as many inputs as the tests can afford"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[target.name for target in TARGETS])
    parser.add_argument("--keep", action="store_true", help="renew the corpus")
    parser.add_argument("inputs", nargs="*", type=Path)
    options = parser.parse_args()
    faulthandler.enable()
    if options.inputs:
        for path in options.inputs:
            replay(path)
        return 0
    slot = Slot()
    targets = [one for one in TARGETS if options.only in (None, one.name)]
    total = findings = 0
    for target in targets:
        fuzzer = Fuzzer(target, random.Random(f"{options.seed} {target.name}"), slot)
        end = time.monotonic() + options.seconds / len(targets)
        armed = 0.0
        try:
            fuzzer.start()
            while fuzzer.steps < target.short if options.short else time.monotonic() < end:
                if time.monotonic() - armed > 1:
                    armed = time.monotonic()
                    faulthandler.dump_traceback_later(STUCK, exit=True)
                fuzzer.step()
        except Finding as finding:
            findings += 1
            left = slot.path.with_name(f"{slot.path.name}-{target.name.replace(' ', '-')}")
            left.write_bytes(slot.path.read_bytes())
            print(f"tilekv: {target.name}: {finding}\ntilekv: the input is {left}", flush=True)
        faulthandler.cancel_dump_traceback_later()
        total += fuzzer.executions
        reached = f", {fuzzer.found} of them new" if fuzzer.new_edges else ""
        print(f"tilekv: {target.name}: {fuzzer.executions} executions{reached}", flush=True)
        if options.keep:
            print(f"tilekv: {target.name}: {keep(fuzzer)} inputs kept", flush=True)
    print(f"tilekv: {total} fuzz executions")
    gc.collect()
    slot.path.unlink()
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
