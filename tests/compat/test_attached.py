"""A store as the metadata of what another library keeps in the folder around it: neither hurts the other (docs/metadata.md)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tilekv

PROGRAM = Path(__file__).parents[1] / "support" / "attached.py"
STEPS = [
    ("write", 1),
    ("kv write", 1),
    ("tend", 0),
    ("kv write", 2),
    ("both", 3),
    ("kv delete", 1),
    ("write", 4),
    ("kv tend", 0),
    ("write", 5),
    ("tend", 0),
    ("kv write", 6),
]
LISTED = "Object at .kv is not recognized as a component of a Zarr hierarchy."
# By kind of host and place of the store: what the library lists, and the warnings that may come.
PLACES: dict[tuple[str, str], tuple[list[str], set[str]]] = {
    ("sparse", ".kv"): (["array"], set()),
    ("dense", ".kv"): (["array"], set()),
    ("group", ".kv"): (["cells", "within", "within/other"], {LISTED}),
    ("group", "cells/.kv"): (["cells", "within", "within/other"], set()),
}


def run(kind: str, folder: Path, place: str) -> list[dict[str, Any]]:
    out = folder.with_suffix(".json")
    arguments = [kind, folder, folder / place, json.dumps(STEPS), out]
    subprocess.run([sys.executable, "-P", PROGRAM, *arguments], check=True)
    found: list[dict[str, Any]] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_neither_hurts_the_other(kind: str, place: str, tmp_path: Path) -> None:
    names, warnings = PLACES[kind, place]
    folder = tmp_path / "host"
    cells, kv = {"0": 0}, {}
    for (what, n), found in zip(STEPS, run(kind, folder, place), strict=True):
        if what in ("write", "both"):
            cells[str(n)] = 10 * n
        if what in ("kv write", "both"):
            kv[f"key {n}"] = n
        if what == "kv delete":
            del kv[f"key {n}"]
        assert found["cells"] == cells, (what, n)
        assert found["kv"] == kv, (what, n)
        assert found["members"] == sorted([*names, *(f"wrote {n}" for n in cells)]), (what, n)
        said = {text for text in found["said"] if not text.startswith("Consolidated metadata is")}
        assert said == warnings, (what, n)
    assert tilekv.object_type(folder) is None
    assert tilekv.object_type(folder / place) == "kv"
    with tilekv.open(folder / place) as db:
        assert dict(db) == kv
