"""tilekv.ray, on workers of this machine: nightly, since Ray is large."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tilekv
import tilekv.ray
from samples import NIGHTLY
from tilekv import InvalidValueError, StoreExistsError

pytestmark = [
    pytest.mark.skipif(not NIGHTLY, reason="Ray is for the nightly run"),
    pytest.mark.filterwarnings("ignore"),
]
ROWS = 2000


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray
    import ray.data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def table(value: str = "v") -> pa.Table:
    return pa.table(
        {
            "key": [f"k{n}" for n in range(ROWS)],
            "number": list(range(ROWS)),
            "text": [None if n % 3 == 0 else f"{value}{n}" for n in range(ROWS)],
        }
    )


def test_there_and_back(ray: Any, tmp_path: Path) -> None:
    data = ray.data.from_arrow(table()).repartition(5)
    data.write_datasink(tilekv.ray.datasink(tmp_path / "s", key="key"))
    with tilekv.open(tmp_path / "s") as db:
        assert len(db) == ROWS
        assert len(db.fragments) <= 5
        assert db["k3"] == {"number": 3, "text": None}
    back = ray.data.read_datasource(tilekv.ray.datasource(tmp_path / "s"), override_num_blocks=4)
    rows = sorted(back.take_all(), key=lambda row: row["number"])
    assert rows == table().to_pylist()
    some = ray.data.read_datasource(tilekv.ray.datasource(tmp_path / "s", ["number"]))
    assert set(some.schema().names) == {"key", "number"}
    assert some.sum("number") == sum(range(ROWS))


def test_modes_and_columns(ray: Any, tmp_path: Path) -> None:
    place = tmp_path / "s"
    data = ray.data.from_arrow(table())
    data.write_datasink(tilekv.ray.datasink(place, key="key", columns=["text"]))
    with tilekv.open(place) as db:
        assert db["k4"] == "v4"
    with pytest.raises(StoreExistsError):
        data.write_datasink(tilekv.ray.datasink(place, key="key"))
    with tilekv.open(place, "a") as db:
        db["more"] = "there"
    new = ray.data.from_arrow(table("new"))
    new.write_datasink(tilekv.ray.datasink(place, key="key", columns=["text"], mode="append"))
    with tilekv.open(place) as db:
        assert [db["k4"], db["more"]] == ["new4", "there"]
    new.write_datasink(tilekv.ray.datasink(place, key="key", mode="overwrite"))
    with tilekv.open(place) as db:
        assert len(db) == ROWS
        assert db["k4"] == {"number": 4, "text": "new4"}
    with pytest.raises(InvalidValueError, match="mode is one of"):
        tilekv.ray.datasink(place, key="key", mode="w")


def test_a_write_that_fails_leaves_nothing(ray: Any, tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> dict[str, Any]:
        if row["number"] == ROWS - 1:
            raise ValueError("mine")
        return row

    with tilekv.open(tmp_path / "s", "x") as db:
        db["old"] = b"v"
    data = ray.data.from_arrow(table()).repartition(5).map(fail)
    for place, mode in ((tmp_path / "new", "error"), (tmp_path / "s", "overwrite")):
        with pytest.raises(Exception, match="mine"):
            data.write_datasink(tilekv.ray.datasink(place, key="key", mode=mode))
    with tilekv.open(tmp_path / "s") as db:
        assert dict(db) == {"old": b"v"}
    assert [each.name for each in tmp_path.iterdir()] == ["s"]
