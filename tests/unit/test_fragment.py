"""kvcore.fragment: metadata is taken whole or not at all."""

from pathlib import Path

import pytest

import tilekv
from tilekv.errors import CorruptionError
from tilekv.kvcore.base.cache import ChunkCache
from tilekv.kvcore.base.file import File
from tilekv.kvcore.codec.pipeline import CodecPool
from tilekv.kvcore.read.fragment import Fragment

METADATA = "__fragment_metadata.tdb"


class Files:
    """The files of a fragment in memory, to be damaged and opened."""

    def __init__(self, folder: Path) -> None:
        schema = tilekv.Schema([tilekv.Attr("n", "int32"), tilekv.Attr("blob", bytes)], capacity=4)
        with tilekv.open(folder / "s", "x", schema=schema) as db:
            db.put_many([(i, (i, b"%d" % i * 2500)) for i in range(10)])
            db.delete_many([3])
            db.flush()
            self.fragment = db.fragments[0]
            self.name = self.fragment.name
            self.layout = db._layout
        self.files = {path.name: path.read_bytes() for path in (folder / "s" / self.name).iterdir()}

    def open(self, name: str | None = None, **changed: bytes) -> Fragment:
        files = self.files | {f"{stem}.tdb": data for stem, data in changed.items()}
        views = []
        for _, stem, is_bytes in self.layout.files:
            views.append(File.memory(files[f"{stem}_var.tdb" if is_bytes else f"{stem}.tdb"]))
        metadata = File.memory(files[METADATA])
        return Fragment(self.layout, name or self.name, metadata, views, ChunkCache(0), CodecPool())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_what_it_says(files: Files) -> None:
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


def test_metadata_of_every_shorter_length_is_refused(files: Files) -> None:
    whole = files.files[METADATA]
    for n in range(len(whole)):
        with pytest.raises(CorruptionError, match=METADATA):
            files.open(__fragment_metadata=whole[:n])


def test_every_flipped_bit_of_the_metadata_is_refused_or_harmless(files: Files) -> None:
    """Harmless: what tilekv does not read, since every payload has its checksum."""
    whole = bytearray(files.files[METADATA])
    harmless, named = 0, set()
    for at in range(len(whole)):
        for bit in (1, 0x80):
            whole[at] ^= bit
            try:
                opened = files.open(__fragment_metadata=bytes(whole))
            except CorruptionError as error:
                named.add(error.file)
            else:
                harmless += 1
                assert (opened.cells, opened.tombstones) == (10, 1)
            whole[at] ^= bit
    assert named == {f"{files.name}/{METADATA}"}
    assert harmless < len(whole)  # of two flips a byte: the rest was refused


def test_another_name_is_refused(files: Files) -> None:
    for name in (files.name[:-1] + "x", "__1_1_" + "0" * 32, files.name.replace("__", "___")):
        with pytest.raises(CorruptionError, match="another name"):
            files.open(name)


def test_data_files_that_are_too_short(files: Files) -> None:
    for name, data in files.files.items():
        if name != METADATA:
            with pytest.raises(CorruptionError, match="the metadata says"):
                files.open(**{name[:-4]: data[:-1]})


def test_as_many_views_as_files(files: Files) -> None:
    fragment = files.open()
    with pytest.raises(ValueError, match="zip"):
        Fragment(files.layout, files.name, File.memory(b""), [], ChunkCache(0), CodecPool())
    assert fragment.cells == 10
