"""kvcore.read.fragment: what its metadata says, and files that fit it."""

from pathlib import Path

import pytest

from fragment_files import METADATA, FragmentFiles
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.base.file import File
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.read.fragment import Fragment


@pytest.fixture
def files(tmp_path: Path) -> FragmentFiles:
    return FragmentFiles(tmp_path)


def test_what_it_says(files: FragmentFiles) -> None:
    fragment = files.open()
    assert (fragment.cells, fragment.tombstones) == (10, 1)
    assert fragment.t1 == fragment.t2 > 1_600_000_000_000
    assert fragment.name == f"__{fragment.t1}_{fragment.t2}_{fragment.uuid.hex()}"
    assert fragment.sources == ()
    assert fragment.stored_bytes == sum(map(len, files.files.values()))
    for slot, name in enumerate(fragment.files):
        if name is not None:
            assert fragment.size_of(slot) == len(files.files[name])
    assert {*filter(None, fragment.files), METADATA} == set(files.files)
    assert files.name in repr(fragment)


def test_data_files_that_are_too_short(files: FragmentFiles) -> None:
    for name, data in files.files.items():
        if name != METADATA:
            with pytest.raises(CorruptionError, match="the metadata says"):
                files.open(**{name[:-4]: data[:-1]})


def test_as_many_views_as_files(files: FragmentFiles) -> None:
    fragment = files.open()
    with pytest.raises(ValueError, match="zip"):
        Fragment(files.layout, files.name, File.memory(b""), [], ChunkCache(0), CodecPool())
    assert fragment.cells == 10
