"""Without the package that an adapter is for, an error says which; and tilekv itself needs none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = """
import sys
for name in {absent!r}.split():
    sys.modules[name] = None  # as if it were not installed
import tilekv, tilekv.memoizing, tilekv.moving.importing, tilekv.notebook, tilekv.torch
try:
    {call}
except tilekv.MissingPackageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("fsspec", "import tilekv.fsspec"),
        ("zarr", "import tilekv.zarr"),
        ("lmdb", "tilekv.import_from('source', 'new.kv', kind='lmdb')"),
        ("plyvel", "tilekv.import_from('source', 'new.kv', kind='leveldb')"),
        ("diskcache", "tilekv.import_from('source', 'new.kv', kind='diskcache')"),
    ],
)
def test_a_package_that_is_missing(tmp_path: Path, package: str, call: str) -> None:
    absent = "fsspec zarr lmdb plyvel diskcache torch xarray dask pandas pyarrow"
    program = ABSENT.format(absent=absent, call=call)
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert package in run.stdout
    assert "pip install" in run.stdout
    assert not (tmp_path / "new.kv").exists()
