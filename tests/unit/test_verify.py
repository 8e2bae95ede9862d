"""verify: the same of all fragments of a snapshot."""

from pathlib import Path

import tilekv
from tilekv.problem import Problem
from tilekv.verify import verify_store


def test_problems_of_several_fragments(tmp_path: Path) -> None:
    with tilekv.open(tmp_path / "s", "x") as db:
        for i in range(3):
            db[i] = b"value"
            db.flush()
        names = [fragment.name for fragment in db.fragments]
        assert db.verify() == verify_store(db.fragments) == []
    for name in names[:2]:
        path = tmp_path / "s" / name / "value_var.tdb"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with tilekv.open(tmp_path / "s", "a") as db:
        found = db.verify()
        assert [(problem.fragment, problem.file) for problem in found] == [
            (name, "value_var.tdb") for name in names[:2]
        ]
        assert str(found[0]).startswith(f"{names[0]}/value_var.tdb, byte ")
        assert db[0] == b"value"  # the third is whole, and the damage does not spread


def test_text() -> None:
    assert str(Problem("f", "a.tdb", 5, "bad")) == "f/a.tdb, byte 5: bad"
    assert str(Problem("f", "a.tdb", None, "bad")) == "f/a.tdb: bad"
