"""A reader of tilekv's stores that shares no code with tilekv: plain Python, checking all that a store promises.

`read_store` parses every file of a store from its first byte to its last and raises Violation where one is not as docs/format.md
says. It gives the cells of every fragment, and a labelled dump of every file: `0x0048 u64 n = 3`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oracle_chunks import Violation, Walk, crc32c, expect, generic_header, read_pipeline
from oracle_fragment import UINT64, VAR, Cell, Field, Fragment, FragmentReader, Schema

__all__ = ["Cell", "Field", "Fragment", "Schema", "Store", "Violation", "read_store"]

CHAR = 4


@dataclass
class Store:
    """A whole store.

    Attributes
    ----------
    schema : Schema
    descriptor : dict
        The members of `__tilekv.json`.
    fragments : list of Fragment
        What no consolidation has superseded, oldest first.
    superseded : list of Fragment
        What is listed in a `.vac` and still there, oldest first.
    dumps : dict of str to str
        By path below the store.
    """

    schema: Schema
    descriptor: dict[str, Any]
    fragments: list[Fragment] = field(default_factory=list)
    superseded: list[Fragment] = field(default_factory=list)
    dumps: dict[str, str] = field(default_factory=dict)

    def rows(self) -> dict[tuple[int, bytes], dict[str, bytes]]:
        """What is alive: values by (key type, key)."""
        found: dict[tuple[int, bytes], dict[str, bytes]] = {}
        for cell in self.all_cells():
            if cell.deleted:
                found.pop((cell.key_type, cell.key), None)
            else:
                found[cell.key_type, cell.key] = cell.values
        return found

    def all_cells(self) -> Iterator[Cell]:
        for fragment in self.fragments:
            yield from fragment.cells


def read_store(root: Path) -> Store:
    """Parse a store. Raises Violation at the first byte that is not as the format says."""
    schema = root.joinpath("__array_schema.tdb").read_bytes()
    expect(schema == root.joinpath("__kv_schema.tdb").read_bytes(), "the two schema files differ")
    expect(root.joinpath("__lock.tdb").read_bytes() == b"", "__lock.tdb is not empty")
    walk = Walk(schema, "__array_schema.tdb")
    descriptor = read_descriptor(root.joinpath("__tilekv.json").read_bytes(), schema)
    store = Store(read_schema(walk, descriptor), descriptor)
    store.dumps["__array_schema.tdb"] = walk.dump()
    names = {path.name for path in root.iterdir()}
    names -= {"__array_schema.tdb", "__kv_schema.tdb", "__lock.tdb", "__tilekv.json"}
    if ".tilekv" in names:
        return _read_recorded(root, names - {".tilekv"}, store)
    lists = {name.removesuffix(".vac"): read_list(root / name) for name in names if ".vac" in name}
    gone = set().union(*lists.values())
    for fragment in _read_fragments(root, names - {f"{owner}.vac" for owner in lists}, store):
        (store.superseded if fragment.name in gone else store.fragments).append(fragment)
    sources = {fragment.name: fragment.sources for fragment in store.fragments + store.superseded}
    for owner, listed in lists.items():
        expect(owner in sources, f"{owner}.vac has no fragment")
        expect(set(sources[owner]) == listed, f"{owner}.vac is not what it was made from")
    return store


def _read_fragments(root: Path, names: set[str], store: Store) -> Iterator[Fragment]:
    """Oldest first."""
    folders = []
    for name in names:
        match = re.fullmatch("__([0-9]+)_([0-9]+)_[0-9a-f]{32}", name)
        expect(match, f"{name} has no place in a store")
        assert match
        folders.append((int(match[1]), -int(match[2]), name))
    for t1, minus_t2, name in sorted(folders):
        fragment = FragmentReader(store.schema, root / name, t1, -minus_t2).read()
        store.dumps |= {f"{name}/{file}": text for file, text in fragment.dumps.items()}
        yield fragment


def _read_recorded(root: Path, names: set[str], store: Store) -> Store:
    """A store with a record, whose merges have all been completed."""
    aside = root / ".tilekv"
    there = {path.name for path in aside.iterdir()} - {"staged", "past"}
    expect(
        all(re.fullmatch("record-[1-9][0-9]*", name) for name in there) and len(there) <= 2,
        f"{there} in .tilekv",
    )
    newest = max(there, key=lambda name: int(name[7:]))
    record = sealed((aside / newest).read_bytes(), newest)
    expect(record["seq"] == int(newest[7:]), f"{newest} is number {record['seq']}")
    expect(record["store"] == store.descriptor["id"], f"{newest} is of another store")
    expect(
        store.descriptor.get("record") is True, "the descriptor does not say that there is a record"
    )
    staged, past = (
        {path.name for path in (aside / place).iterdir()} if (aside / place).exists() else set()
        for place in ("staged", "past")
    )
    expect(not staged, f"{staged} was not shown")
    gone = {name for commit in record["commits"] for name in commit["sources"]}
    made = {name for commit in record["commits"] for name in commit["outputs"]}
    expect(all(short(name) in gone for name in past), "something in the past that counts")
    expect(not any(short(name) in gone for name in names), "something in the root that does not")
    for name in names:
        expect((name in made) == (name[-20] == "8"), f"{name}: who made it?")
    expect({name for name in made if short(name) not in gone} <= names, "what counts is not there")
    store.fragments += _read_fragments(root, names, store)
    store.superseded += _read_fragments(aside / "past", past, store)
    made_by = {fragment.name: fragment for fragment in store.fragments + store.superseded}
    for commit in record["commits"]:
        first = commit["outputs"][:1]
        for name in commit["outputs"]:
            fragment = made_by[name]
            if fragment.first_output:
                expect([fragment.first_output] == first, f"{name} is of another merge")
            expect(
                {*commit["sources"]}
                <= {*map(short, made_by[fragment.first_output or name].sources)},
                f"{name} is not what it was made from",
            )
    return store


def short(name: str) -> str:
    """What the record calls a fragment that is superseded."""
    _, _, t1, t2, unique = name.split("_")
    return f"{t1}_{unique[:16]}" if t1 == t2 else f"{t1}_{t2}_{unique[:16]}"


def sealed(data: bytes, file: str) -> dict[str, Any]:
    """The members of a JSON object whose checksum is right."""
    members: dict[str, Any] = json.loads(data)
    crc = members.pop("crc32c")
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    expect(crc == crc32c(canonical), f"the checksum of {file}")
    return members


def read_list(path: Path) -> set[str]:
    """The fragments that a `.vac` file lists, above its checksum if it has one."""
    data = path.read_bytes()
    lines = data.decode().split("\n")
    expect(lines.pop() == "", f"{path.name} does not end in a new line")
    if lines and lines[-1].startswith("/.crc32c-"):
        crc = lines.pop()
        covered = path.name.removesuffix(".vac").encode() + b"\n" + data[: -len(crc) - 1]
        expect(int(crc[9:], 16) == crc32c(covered), f"the checksum of {path.name}")
    for line in lines:
        expect(re.fullmatch("/__[0-9]+_[0-9]+_[0-9a-f]{32}", line), f"{path.name}: {line}")
    expect(lines and len(set(lines)) == len(lines), f"{path.name}: how many lines there are")
    return {line[1:] for line in lines}


# --- the root --------------------------------------------------------------------------------------


def read_descriptor(data: bytes, schema: bytes) -> dict[str, Any]:
    members = sealed(data, "__tilekv.json")
    expect(members["schema_crc32c"] == crc32c(schema), "the checksum of the schema file")
    expect(
        members["format"] == 1 + ("record" in members) and members["digest"] in ("blake2b", "md5"),
        "__tilekv.json",
    )
    expect(re.fullmatch("[0-9a-f]{32}", members["id"]), "the id of the store")
    return members


def read_schema(walk: Walk, descriptor: dict[str, Any]) -> Schema:
    size = generic_header(walk)
    walk.u32("meta size", 0)
    end = walk.at + size
    walk.u32("format version", 3)
    walk.u8("array type: sparse", 1)
    walk.u8("tile order: row-major", 0)
    walk.u8("cell order: row-major", 0)
    capacity = walk.u64("capacity")
    coords, offsets = read_pipeline(walk, "coords"), read_pipeline(walk, "offsets")
    expect(coords.filters == (), "the coordinates have filters")
    walk.u8("domain type: UINT64", UINT64)
    walk.u32("dimensions", 2)
    for name in (b"__key_dim_1", b"__key_dim_2"):
        expect(walk.take(walk.u32("name size"), "name") == name, "a dimension's name")
        walk.u64("low", 0)
        walk.u64("high", 2**64 - 2)
        walk.u8("no extent", 0)
        walk.u64("extent", 2**64 - 1)
    fields = []
    for i in range(walk.u32("fields")):
        name = walk.take(walk.u32("name size"), "name").decode()
        datatype, values = walk.u8("datatype"), walk.u32("values per cell")
        expect(values > 0, f"{name} has no values")
        fields.append(Field(name, datatype, values, read_pipeline(walk, f"field {i}")))
    expect(walk.at == end, "the schema's size")
    walk.end()
    expect(fields[0][:3] == ("__key", CHAR, VAR), "__key comes first")
    expect(fields[-1][:3] == ("__key_type", CHAR, 1), "__key_type comes last")
    names = [one.name for one in fields[1:-1]]
    expect(list(descriptor["attrs"]) == names, "attributes of __tilekv.json")
    return Schema(capacity, tuple(fields), coords, offsets, str(descriptor["digest"]))
