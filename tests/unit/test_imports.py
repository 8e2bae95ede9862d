"""What an import of tilekv brings, and that what it does not bring comes when it is used."""

from __future__ import annotations

import ast
import importlib
import json
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tilekv

# Packages and their modules. What joins them costs every program that imports tilekv.
BROUGHT = """
tilekv: arguments clock commit config consolidation cursor datatypes descriptor engine equality errors expiry filters
    flusher frametypes history keeper maintenance names newer opener probe progress record schema schemafile
    sealed seeding store tiers upkeeping vacuuming valuefile version workers
tilekv.kvcore: handle
tilekv.kvcore.base: cache crc32c file memory wire writeback
tilekv.kvcore.batch: get_many key_scan read_batch readers requests results scan
tilekv.kvcore.codec: bitwidth checksums chunk compress deltas filters pipeline rle shuffles
tilekv.kvcore.format: bloom datatypes footer layout tile
tilekv.kvcore.hashing: coords digest
tilekv.kvcore.merge: collisions merge merge_source
tilekv.kvcore.read: batch_lookup chunk_reader column_reader digest_index fragment plan snapshot stored_value
tilekv.kvcore.values: arrow_arrays arrow_export arrow_import arrow_stream arrow_types exact
    input_cells input_columns key_filter keys values
tilekv.kvcore.write: builder memtable rows sorted_buffer
tilekv.storage: descriptors exchange local memory overlay process protocol streams
tilekv.tiledb: config context
tilekv.tools: info
"""
# Of the standard library, each with much in its train: for what few programs use, it comes when they do.
HEAVY = {
    "argparse",
    "asyncio",
    "concurrent.futures",
    "difflib",
    "email",
    "graphlib",
    "hashlib",
    "http",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "random",
    "secrets",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "unittest",
    "urllib",
    "urllib.parse",
    "xml",
    "zipfile",
}


def fresh(program: str, *arguments: str) -> Any:
    """What a program leaves in `found`, in an interpreter of its own."""
    text = f"import json, sys\n{program}\nprint(json.dumps(found))"
    run = subprocess.run(
        [sys.executable, "-P", "-c", text, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(run.stdout)


def brought() -> set[str]:
    """The names in BROUGHT, of packages and modules."""
    found, package = set(), ""
    for word in BROUGHT.split():
        if word.endswith(":"):
            package = word[:-1]
            found.add(package)
        else:
            found.add(f"{package}.{word}")
    return found


def test_an_import_brings_what_an_open_store_needs() -> None:
    found = fresh(
        "import numpy\nbefore = set(sys.modules)\nimport tilekv\n"
        "found = sorted(set(sys.modules) - before)"
    )
    assert {name for name in found if name.partition(".")[0] == "tilekv"} == brought()
    assert HEAVY.isdisjoint(found)


USES = """
import tilekv
before = set(sys.modules)
with tilekv.open(sys.argv[1], "a") as db:
    db["key"] = b"value"
    db.put_many({i: b"%d" % i for i in range(1000)})
    db.flush()
    db.reopen()
    assert db["key"] == b"value"
    assert db.get_many([1, 2]) == [b"1", b"2"]
    assert len(db.read([1, 2])) == 2
    assert len(list(db.items())) == 1001
    assert sum(len(batch) for batch in db.scan()) == 1001
    del db["key"]
found = sorted(set(sys.modules) - before)
"""


@pytest.mark.parametrize("uri", ["memory://store", "store"])
def test_a_store_in_use_brings_nothing_more(tmp_path: Path, uri: str) -> None:
    """At the end of a process, when handles flush themselves, nothing can be imported any more."""
    found = fresh(USES, uri if ":" in uri else str(tmp_path / uri))
    assert [name for name in found if name.partition(".")[0] == "tilekv"] == []
    assert HEAVY.isdisjoint(found)


def test_what_is_used_comes() -> None:
    found = fresh(
        "import tilekv\nfound = [n for n in tilekv.__all__ if n not in vars(tilekv)]\n"
        "assert set(found) <= set(dir(tilekv))\n"
        "from tilekv import *\n"
        "assert set(tilekv.__all__) <= set(globals())\n"
        "assert all(globals()[n] is vars(tilekv)[n] for n in found)"
    )
    assert {"KV", "Map", "backup", "convert", "salvage", "verify", "Info"} <= set(found)


def test_help_shows_what_was_not_used_yet() -> None:
    show = (
        "import pydoc, re\nfound = re.sub('0x[0-9a-f]+', '', pydoc.plain(pydoc.render_doc(tilekv)))"
    )
    found = fresh(f"import tilekv\n{show}")
    for told in ("class KV(", "class MapItem(", "verify(uri", "default_ctx()"):
        assert told in found
    assert found == fresh(f"import tilekv\nfrom tilekv import *\n{show}")


def test_type_checkers_see_what_comes_when_used() -> None:
    tree = ast.parse(Path(tilekv.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == tilekv._MODULE_OF
    assert seen.keys() <= set(tilekv.__all__)


def test_no_module_takes_the_place_of_a_function() -> None:
    """The first import of a module puts it into its package, under its last name."""
    modules = {name for _, name, _ in pkgutil.iter_modules(tilekv.__path__)}
    assert modules.isdisjoint(tilekv.__all__)
    for module in tilekv._WHEN_USED:
        importlib.import_module(module)
    for name in ("backup", "convert", "salvage", "verify"):
        assert callable(getattr(tilekv, name))


@pytest.mark.parametrize("name", sorted(tilekv.__all__))
def test_public_classes_and_functions_are_pickled_by_name(name: str) -> None:
    made = getattr(tilekv, name)
    if callable(made):
        assert pickle.loads(pickle.dumps(made)) is made


def test_what_is_not_there() -> None:
    assert not hasattr(tilekv, "nothing")
    with pytest.raises(AttributeError, match=r"module 'tilekv' has no attribute 'nothing'"):
        tilekv.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from tilekv import nothing")
