"""No class of tilekv can be made so bare that using it ends the process."""

import copy
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import bare
import tilekv
from tilekv.errors import WrongTypeError

# Those that can be made without anything.
WHOLE = {
    "tilekv.kvcore.base.file.Holding",
    "tilekv.kvcore.codec.pipeline.CodecPool",
    "tilekv.kvcore.handle.Handle",  # closed, as a Store without one is
    "tilekv.kvcore.format.tile.CellSource",  # knows nothing, and says so
    "tilekv.kvcore.read.batch_lookup.Continuation",  # does nothing
    "tilekv.kvcore.serve.resp.Parser",  # has been fed nothing
    "tilekv.kvcore.serve.resp.Push",  # a list, as the next two are an exception and a text
    "tilekv.kvcore.serve.resp.ReplyError",
    "tilekv.kvcore.serve.resp.Verbatim",
    "tilekv.kvcore.values.key_filter.KeyFilter",  # asks for all keys
}


def test_nothing_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-P", bare.__file__],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines == [f"tried {len(bare.exported_and_compiled()) * len(bare.WAYS)}"]
    assert len(bare.exported_and_compiled()) > 80


def test_the_end_of_a_process_is_noticed() -> None:
    assert bare.survives(lambda: None)
    assert not bare.survives(os.abort)


@pytest.mark.parametrize(
    "cls",
    [
        each
        for each in bare.exported_and_compiled()
        if each.__module__.startswith("tilekv.kvcore.") and each is not tilekv.Key
    ],
    ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}",
)
def test_compiled_classes_are_made_whole_or_not_at_all(cls: Any) -> None:
    ways: list[Callable[[], object]] = [
        cls,
        lambda: cls.__new__(cls),
        lambda: object.__new__(cls),
        lambda: tilekv.VarColumn.__new__(cls),
    ]
    if f"{cls.__module__}.{cls.__qualname__}" in WHOLE:
        ways = ways[2:]
    for make in ways:
        with pytest.raises(TypeError):
            make()


def test_what_is_handed_out_is_not_copied() -> None:
    with tilekv.open(f"memory://{uuid.uuid4().hex}", "x") as db:
        db["a"] = b"1"
        batch = db.read(["a"])
        for made in (batch, batch["value"], db.scan(), iter(db)):
            for do in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError):
                    do(made)
        for made in (batch, batch["value"], db.scan()):
            with pytest.raises(WrongTypeError, match="not copied or pickled"):
                copy.copy(made)
        assert batch["value"].to_list() == list(db.values()) == [b"1"]
