"""What the process or the system lacks is an error, never a finding: not in `verify`, `salvage`, `info` or `convert`.

Every call of the storage fails with every such error. The call raises it, or gives what it gives without; and nothing is left of
a new store.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tilekv
from faulty import Fault, Faults, everywhere, fault_at
from old_stores import OldStoreWriter
from operations import filled

NIGHTLY = bool(os.environ.get("TILEKV_NIGHTLY"))
LACKS = (
    *map(
        Fault,
        (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EIO),
    ),
    Fault(errno.ENOMEM, error=MemoryError),
)


class Look(NamedTuple):
    """A way to look at a whole store; `prepare` makes the store in a folder."""

    name: str
    prepare: Callable[[Path], object]
    run: Callable[[Path], Any]


def damaged(folder: Path) -> None:
    """Everything that salvage has an answer to: a schema file, the record, metadata, a chunk, a file that is missing."""
    filled(folder)
    store = folder / "store"
    with tilekv.open(store, "a", config={"kv.sync": False}) as db:
        for turn in range(4):
            db.put_many(dict.fromkeys(range(turn, 20, 3), b"%d" % turn))
            db.flush()
    record = max(store.glob(".tilekv/record-*"))
    chunk, missing, metadata = sorted(store.glob("__*_*_*/"), reverse=True)[:3]
    flip(store / "__array_schema.tdb", -10)
    flip(record, 5)
    flip(metadata / "__fragment_metadata.tdb", -30)
    flip(chunk / "value_var.tdb", 40)
    (missing / "__key_var.tdb").unlink()
    (store / "copy_of_it").mkdir()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)


def old(folder: Path) -> None:
    writer = OldStoreWriter(folder / "store", 2, 4)
    for flush in range(2):
        items = [((4, b"key_%d" % i), i, b"v" * i) for i in range(flush, 9, 2)]
        writer.flush(items, 1000 + flush)


def salvage(folder: Path) -> Any:
    found = tilekv.salvage(folder / "store", folder / "new", stale=folder / "stale")
    return found, entries(folder / "new"), entries(folder / "stale")


def convert(folder: Path) -> Any:
    return tilekv.convert(folder / "store", folder / "new"), entries(folder / "new")


def entries(path: Path) -> list[Any]:
    with tilekv.open(path) as db:
        return list(db.items())


def info(folder: Path) -> Any:
    with tilekv.open(folder / "store") as db:
        return db.info()


LOOKS = (
    Look("verify", filled, lambda folder: tilekv.verify(folder / "store")),
    Look("verify what is damaged", damaged, lambda folder: tilekv.verify(folder / "store")),
    Look("verify an old one", old, lambda folder: tilekv.verify(folder / "store")),
    Look("salvage", filled, salvage),
    Look("salvage what is damaged", damaged, salvage),
    Look("info", filled, info),
    Look("info of an old one", old, info),
    Look("convert", old, convert),
)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_every_call_lacks_something(folder: Path, look: Look, tally: Any) -> None:
    look.prepare(folder)

    def meet(faults: Faults) -> Any:
        try:
            with everywhere(faults):
                return look.run(folder)
        finally:
            for each in set(os.listdir(folder)) - {"store"}:
                assert not each.startswith(".tmp-")
                shutil.rmtree(folder / each)

    sound = Faults()
    expected = meet(sound)
    raised = 0
    for number, name in enumerate(sound.calls, start=1):
        if name.endswith(".abandon"):  # never raises
            continue
        for fault in LACKS if NIGHTLY else {LACKS[number % len(LACKS)], LACKS[-1]}:
            faults = fault_at(number, fault)
            try:
                found = meet(faults)
            except (OSError, MemoryError) as error:
                assert isinstance(error, fault.error)  # noqa: PT017
                assert getattr(error, "errno", fault.code) == fault.code  # noqa: PT017
                raised += 1
            else:
                assert found == expected, (number, name, fault)
                # Of what was just written, opened when it is needed; and what would spare others something.
                assert name in ("open_files", "spare")
            assert faults.hit == fault
    assert raised > len(sound.calls)
    tally("lacks of the system", raised)


def test_what_is_damaged_is_found(folder: Path) -> None:
    """The stores above that are not damaged have no problems, and those that are have many."""
    for name, prepare in (("sound", filled), ("damaged", damaged)):
        (folder / name).mkdir()
        prepare(folder / name)
        problems = tilekv.verify(folder / name / "store")
        found, _, _ = salvage(folder / name)
        assert bool(problems) == bool(found.problems) == (name == "damaged")
    assert {problem.file for problem in problems} >= {
        "__array_schema.tdb",
        "__fragment_metadata.tdb",
        "value_var.tdb",
        "__key_var.tdb",
    }
    assert found.copied
    assert found.stale
    assert found.unreadable
