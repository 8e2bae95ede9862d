"""kvcore.format.footer: the metadata file is taken whole or not at all, and each check refuses what it is for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fragment_files import FIELDS, METADATA, FragmentFiles
from hostile import BLOOM, CHUNKS, FIRST, IDENTITY, PAYLOAD, SOURCES, UNIFORM, Metadata
from tilekv.errors import CorruptionError
from tilekv.kvcore.format.footer import trailer


@pytest.fixture
def files(tmp_path: Path) -> FragmentFiles:
    return FragmentFiles(tmp_path)


def test_metadata_of_every_shorter_length_is_refused(files: FragmentFiles) -> None:
    whole = files.files[METADATA]
    for n in range(len(whole)):
        with pytest.raises(CorruptionError, match=METADATA):
            files.open(__fragment_metadata=whole[:n])


def test_every_flipped_bit_of_the_metadata_is_refused_or_harmless(files: FragmentFiles) -> None:
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


def test_another_name_is_refused(files: FragmentFiles) -> None:
    for name in (files.name[:-1] + "x", "__1_1_" + "0" * 32, files.name.replace("__", "___")):
        with pytest.raises(CorruptionError, match="another name"):
            files.open(name)


SIZES = 54  # in the footer: where the sizes of files begin
POSITIONS = SIZES + 8 * (2 * FIELDS + 1)
FIXED, COORDS, BLOB = 1, FIELDS, 2  # slot of `n`, of the coordinates; field `blob`


def directory(m: Metadata) -> int:
    [at] = m.records(CHUNKS)
    return at


def identity(m: Metadata) -> int:
    [at] = m.records(IDENTITY)
    return at


def uniform(m: Metadata) -> int:
    """That of the blobs, each of 2,500 bytes but for the one that is deleted."""
    return next(at for at in m.records(UNIFORM) if m.u32(at) == FIELDS + 1 + BLOB)


def uniform_size(m: Metadata) -> int:
    """Where it says so of a tile."""
    return next(at for at in range(uniform(m) + 8, m.tail, 4) if m.u32(at) == 2500)


def bloom(m: Metadata) -> int:
    [at] = m.records(BLOOM)
    return at


LIES: list[tuple[Callable[[Metadata], None], str]] = [
    (lambda m: m.put(m.tail + 8, 0, 4), "tilekv's mark is not before the footer"),
    (lambda m: m.put(m.tail, 1 << 20, 4), "a private block of 1048576 bytes"),
    (lambda m: m.put(m.tail, m.u32(m.tail) - 4, 4), "a private block of"),
    (lambda m: m.put(m.footer, 4, 4), "not the footer of a sparse fragment of format 3"),
    (lambda m: m.put(m.footer + 4, 1, 1), "not the footer of a sparse fragment of format 3"),
    (lambda m: m.put(m.footer + 38, 0), "0 tiles with 2 cells in the last"),
    (lambda m: m.put(m.footer + 46, 5), "3 tiles with 5 cells in the last"),
    (lambda m: m.put(m.footer + SIZES + 8 * COORDS, 7), "7 bytes of coordinates for 10 cells"),
    (lambda m: m.put(m.footer + POSITIONS, 1 << 40), "a metadata tile beyond the file"),
    (lambda m: m.put(m.footer + POSITIONS, 16), "parts .* that do not follow one another"),
    (lambda m: m.put(m.footer + POSITIONS + 8, 3), "parts .* that do not follow one another"),
    (lambda m: m.put(2, 1, 1), "padding that is not zero"),
    (lambda m: m.put(m.vectors[0], 4, 4), "not a raw metadata tile of one chunk"),
    (lambda m: m.put(m.vectors[0] + 29, 1, 1), "not a raw metadata tile of one chunk"),
    (lambda m: m.put(m.vectors[0] + 66, 1, 1), "private bytes that are not zero"),
    (lambda m: m.put(m.rtree + PAYLOAD, 3, 4), "not an R-tree of two uint64 dimensions"),
    (lambda m: m.put(m.rtree + PAYLOAD + 13, 1 << 32), "an R-tree that ends early"),
    (lambda m: m.put(m.rtree + PAYLOAD + 9, 3, 4), "an R-tree that ends early"),
    (lambda m: m.put(m.rtree + PAYLOAD + 9, 1, 4), "an R-tree with 1 leaves for 3 tiles"),
    (lambda m: m.put(m.vectors[0] + PAYLOAD, 2), "a vector of 3 numbers expected"),
    (lambda m: m.put(m.block + 4, 1 << 31, 4), "a record that is longer than"),
    (lambda m: m.put(identity(m) - 8, 99, 4), "0 cells in the private block, 10 in the footer"),
    (lambda m: m.put(identity(m) + 32, 11), "11 cells in the private block, 10 in the footer"),
    (lambda m: m.put(identity(m) + 40, 11), "10 cells in the private block, 10 in the footer"),
    (lambda m: m.put(identity(m) + 16, 7), "this is fragment __7_.* under another name"),
    (lambda m: m.put(directory(m), COORDS, 4), "a chunk directory that fits no file"),
    (lambda m: m.put(directory(m), FIELDS + 1 + FIXED, 4), "directory that fits no file"),
    (lambda m: m.put(directory(m), 2 * FIELDS + 1, 4), "directory that fits no file"),
    (lambda m: m.put(directory(m) + 4, 5, 4), "a chunk directory that fits no file"),
    (lambda m: m.put(directory(m) + 8, 1), "a chunk directory that fits no file"),
    (lambda m: m.put(directory(m) + 28, 1, 4), "directory that counts its chunks wrongly"),
    (lambda m: m.put(directory(m) + 20, 99, 4), "a chunk directory that runs backwards"),
    (lambda m: m.put(m.entry(m.raw_sizes(BLOB), 0), 1 << 40), "in chunks that hold"),
    (lambda m: m.put(uniform(m), BLOB, 4), "what the cells of tiles have in common, of no file"),
    (lambda m: m.put(uniform(m), COORDS, 4), "what the cells of tiles have in common, of no file"),
    (lambda m: m.put(uniform(m), 1 << 31, 4), "what the cells of tiles have in common, of no file"),
    (lambda m: m.put(uniform(m) + 4, 2, 4), "what the cells of tiles have in common, of no file"),
    (lambda m: m.put(uniform(m), FIELDS - 1, 4), "a key type of 2500"),
    (lambda m: m.put(uniform_size(m), 7, 4), "whose cells have 7 each"),
    (lambda m: m.put(bloom(m), 1 << 40), "a filter of 1 blocks that the file has no room for"),
    (lambda m: m.put(bloom(m) + 8, 0), "a filter of 0 blocks that the file has no room for"),
    (lambda m: m.put(bloom(m) + 8, 1 << 40), "blocks that the file has no room for"),
    (lambda m: m.put(bloom(m), m.u64(bloom(m)) - 64), "parts .* that do not follow one another"),
    (lambda m: m.put(bloom(m), m.u64(bloom(m)) + 64), "no room for"),
]


@pytest.mark.parametrize(
    ("change", "message"), LIES, ids=[f"{i}: {message}" for i, (_, message) in enumerate(LIES)]
)
def test_lies_under_right_checksums(
    files: FragmentFiles, change: Callable[[Metadata], None], message: str
) -> None:
    metadata = Metadata(files.files[METADATA], FIELDS)
    assert files.open(__fragment_metadata=metadata.seal()).cells == 10
    change(metadata)
    with pytest.raises(CorruptionError, match=message):
        files.open(__fragment_metadata=metadata.seal())


def test_checksums(files: FragmentFiles) -> None:
    whole = files.files[METADATA]
    metadata = Metadata(whole, FIELDS)
    for at, message in (
        (metadata.footer + 6, "private block and footer fail their checksum"),
        (metadata.block + 8, "private block and footer fail their checksum"),
        (metadata.vectors[1] + PAYLOAD + 8, "a metadata tile fails its checksum"),
    ):
        with pytest.raises(CorruptionError, match=message):
            files.open(__fragment_metadata=whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_sources(files: FragmentFiles) -> None:
    """A list that ends within a name, and a name that is no text."""
    metadata = Metadata(files.files[METADATA], FIELDS)
    at = directory(metadata) - 8
    old = metadata.u32(at + 4)
    for names, message in (
        (b"\xff\0\0\0name", "a list of sources that ends early"),
        (b"\4\0\0\0\xff\xff\xff\xff", "a source whose name is not text"),
    ):
        metadata.put(at, SOURCES, 4)  # instead of the directory
        metadata.put(at + 4, old, 4)
        metadata.data[at + 8 : at + 8 + len(names)] = names
        with pytest.raises(CorruptionError, match=message):
            files.open(__fragment_metadata=metadata.seal())


def test_first_output(files: FragmentFiles) -> None:
    """It is a fragment's name, and nothing else: it is opened."""
    metadata = Metadata(files.files[METADATA], FIELDS)
    at = directory(metadata) - 8
    name = b"__1_2_" + b"0123456789abcdef" * 2
    for wrong in (b"", name[:-1], name + b"0", b"__1_2_" + b"A" * 32, b"../" + name, b"\xff" * 38):
        metadata.put(at, FIRST, 4)  # instead of the directory
        metadata.put(at + 4, len(wrong), 4)
        metadata.data[at + 8 : at + 8 + len(wrong)] = wrong
        with pytest.raises(CorruptionError, match="whose name is no fragment's"):
            files.open(__fragment_metadata=metadata.seal())


def test_trailer() -> None:
    uuid = bytes(range(16))
    assert trailer(uuid, 0x01020304) == uuid + b"\4\3\2\1"
    for slot in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            trailer(uuid, slot)
