"""The house rules hold in this repository, and each of them notices a planted violation."""

import runpy

import pytest

import tilekv
from cython_rules import contract_complaints, guard_complaints, stub_complaints
from import_rules import (
    for_tests_complaints,
    import_complaints,
    os_complaints,
    pickle_complaints,
    ranks,
)
from repository import (
    CORE,
    ROOT,
    Sources,
    core_sources,
    header_sources,
    module_of,
    python_sources,
    repository_texts,
)
from text_rules import (
    citation_complaints,
    docstring_complaints,
    subject_complaints,
    text_complaints,
    whereabouts_complaints,
)
from word_rules import moved_complaints, word_complaints


def test_imports_go_down() -> None:
    order = ranks((ROOT / "ARCHITECTURE.md").read_text())
    assert import_complaints(core_sources() | python_sources(), order) == []


def test_only_storage_touches_the_operating_system() -> None:
    assert os_complaints(core_sources() | python_sources()) == []


def test_no_retired_words() -> None:
    assert word_complaints(core_sources() | header_sources() | python_sources()) == []


def test_no_retired_modules() -> None:
    assert moved_complaints(repository_texts()) == []


def test_headers_are_guarded_by_their_names() -> None:
    assert guard_complaints(header_sources()) == []


def test_unit_tests_name_modules_that_exist() -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests" / "unit").glob("*.py")}
    assert subject_complaints(tests, map(module_of, core_sources())) == []


def test_nothing_is_pickled() -> None:
    assert pickle_complaints(core_sources() | python_sources()) == []


def test_nothing_uses_what_is_for_tests() -> None:
    assert for_tests_complaints(core_sources() | python_sources()) == []


def test_compiled_modules_have_stubs() -> None:
    assert stub_complaints(str(path.relative_to(CORE)) for path in CORE.rglob("*")) == []


def test_c_signatures_state_their_exceptions() -> None:
    assert contract_complaints(core_sources()) == []


def test_public_names_are_documented() -> None:
    assert docstring_complaints(tilekv, tilekv.__all__) == []


def test_texts_are_finished_and_name_no_workplace() -> None:
    assert text_complaints(repository_texts()) == []


def test_cited_sections_exist() -> None:
    assert citation_complaints(repository_texts()) == []


def test_things_are_where_the_architecture_says() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert text.count("\n| ", text.index("## Where is ...?"), text.index("## A get")) >= 15
    assert whereabouts_complaints(text, lambda file: (ROOT / file).read_text()) == []


def test_mutants_are_faults_of_what_there_is() -> None:
    """`make mutants` runs them: whoever changes a line that one of them replaces changes the mutant too."""
    mutants = runpy.run_path(str(ROOT / "tools" / "mutants.py"))
    package = ROOT / "python" / "tilekv"
    complaints = [mutants["misplaced"](package, each) for each in mutants["MUTANTS"].values()]
    assert set(complaints) == {None}
    assert all((ROOT / each.tests).is_file() for each in mutants["MUTANTS"].values())
    stale = next(iter(mutants["MUTANTS"].values()))._replace(right="no such code")
    assert "0 times" in mutants["misplaced"](package, stale)


DRAWING = """
kvcore/   wire -> codec, file -> tile
python/   errors -> schema -> storage -> store -> __main__
"""
PLACED: Sources = {
    "tilekv.errors": "",
    "tilekv.kvcore.wire.pyx": "from tilekv.errors import CorruptionError",
    "tilekv.kvcore.codec.pyx": "from tilekv.kvcore.wire cimport (Out,\n    load64)",
    "tilekv.kvcore.file.pyx": "cimport tilekv.kvcore.wire as wire",
    "tilekv.kvcore.tile.pxd": "from tilekv.kvcore cimport codec  # not tilekv.store",
    "tilekv.schema": "import json",
    "tilekv.storage.__init__": "from tilekv.storage.local import Local",
    "tilekv.storage.local": "import os\nfrom tilekv.kvcore.file import File",
    "tilekv.store": "import tilekv.schema\nfrom tilekv.kvcore import tile",
    "tilekv.__init__": "from tilekv.store import Store",
    "tilekv.__main__": "import tilekv\nopen('file')",
}


def test_rules_accept_what_is_right() -> None:
    assert import_complaints(PLACED, ranks(DRAWING)) == []
    assert os_complaints(PLACED) == []
    assert pickle_complaints(PLACED) == []
    assert for_tests_complaints(PLACED) == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("tilekv.kvcore.wire.pxd", "from tilekv.kvcore.tile cimport PlannedChunk", "is above it"),
        ("tilekv.kvcore.wire.pyx", "from tilekv.kvcore cimport (\n    tile)", "is above it"),
        (
            "tilekv.kvcore.codec.pyx",
            "def f():\n    from tilekv.schema import Schema",
            "is above it",
        ),
        ("tilekv.schema", "import tilekv.store", "is above it"),
        ("tilekv.schema", "from tilekv import Store", "is above it"),
        ("tilekv.schema", "if TYPE_CHECKING:\n    from tilekv import store", "is above it"),
        ("tilekv.schema", "from .errors import KeyMissing", "write it out"),
        ("tilekv.kvcore.codec.pyx", "from .wire cimport Out", "write it out"),
        ("tilekv.errors", "import tilekv.kvcore", "imports nothing of tilekv"),
        ("tilekv.storage.memory", "from tilekv.store import Store", "is above it"),
        ("tilekv.storage.local", "import tilekv.storage", "circle"),
        ("tilekv.cleverness", "", "no place"),
        ("tilekv.kvcore.cleverness.pyx", "", "no place"),
        ("tilekv.store", "import tilekv.gone", "does not exist"),
    ],
)
def test_imports_that_are_wrong(module: str, text: str, complaint: str) -> None:
    complaints = import_complaints(PLACED | {module: text}, ranks(DRAWING))
    assert any(complaint in each for each in complaints)


@pytest.mark.parametrize(
    "text",
    [
        "from tilekv.kvcore.testing cimport clamped",
        "from tilekv.kvcore import fragment, testing",
        "def f():\n    import tilekv.kvcore.testing",
    ],
)
def test_uses_of_what_is_for_tests(text: str) -> None:
    assert for_tests_complaints({"tilekv.store": text})


def test_equals_in_a_circle() -> None:
    planted = {
        "tilekv.kvcore.codec.pyx": "cimport tilekv.kvcore.file",
        "tilekv.kvcore.file.pxd": "cimport tilekv.kvcore.codec",
    }
    assert "circle" in import_complaints(PLACED | planted, ranks(DRAWING))[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("tilekv.store", "import os\nos.rename(a, b)"),
        ("tilekv.store", "from os import fspath, unlink"),
        ("tilekv.store", "import os.path"),
        ("tilekv.store", "def f():\n    import shutil"),
        ("tilekv.store", "from pathlib import Path"),
        ("tilekv.store", "import io\nio.open(path)"),
        ("tilekv.store", "from io import FileIO"),
        ("tilekv.store", "with open(path) as file: pass"),
        ("tilekv.schema", "import mmap, json"),
        ("tilekv.kvcore.tile.pyx", "from posix.unistd cimport pread"),
        (
            "tilekv.kvcore.tile.pyx",
            'cdef extern from "sys/mman.h" nogil:\n    int munmap(void*, size_t)',
        ),
        ("tilekv.kvcore.tile.pyx", "import os\ndef f():\n    os.close(3)"),
        ("tilekv.kvcore.tile.pyx", "def f(path):\n    return open(path)"),
    ],
)
def test_uses_of_the_operating_system(module: str, text: str) -> None:
    assert os_complaints({module: text})


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("tilekv.store", "import io, os\nraise io.UnsupportedOperation(os.fspath(uri))"),
        ("tilekv.store", "def open(uri): ...\ndb = open('a')"),
        ("tilekv.__main__", "from tilekv import open\ndb = open('a')"),
        (
            "tilekv.kvcore.tile.pyx",
            '"""open(path) is not for us: os.rename"""  # import mmap\nview.open()',
        ),
        ("tilekv.kvcore.base.file.pyx", "from posix.unistd cimport pread"),
    ],
)
def test_no_uses_of_the_operating_system(module: str, text: str) -> None:
    assert os_complaints({module: text}) == []


@pytest.mark.parametrize(
    "text", ["import pickle", "from pickle import loads", "import json, marshal"]
)
def test_pickles(text: str) -> None:
    assert pickle_complaints({"tilekv.store": text})
    assert pickle_complaints({"tilekv.kvcore.codec.pyx": text})


def test_missing_stub() -> None:
    assert stub_complaints(["wire.pxd", "wire.pyi", "wire.pyx", "tile.pyx"]) == [
        "kvcore/tile.pyx has no stub: add kvcore/tile.pyi"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "cdef int f(int x)",
        "cdef int f(int x) nogil",
        "cdef inline uint64_t f(const void* p,\n    size_t n) nogil:",
        "cdef class A:\n    cdef B* f(self)",
        "cdef class A:\n    cdef A* f(self)",
        "cpdef bint f(bytes noexcept)",
        "ctypedef int (*compare)(const void*, int (*)(int)) nogil",
    ],
)
def test_signature_without_contract(line: str) -> None:
    assert len(contract_complaints({"tilekv.kvcore.tile.pxd": line})) == 1


@pytest.mark.parametrize(
    "line",
    [
        "cdef int f(int x) noexcept nogil",
        "cdef int f(int x) except -1",
        "cdef void f() except *",
        "cdef B* f(self,\n    int x) except NULL",
        "cdef class A:\n    cdef f(self)\n    cdef A g(self)\n    cdef inline bytes h(self)",
        'cdef extern from "zstd.h" nogil:\n    size_t ZSTD_compress(void* a, size_t b)\n    cdef int f(int)',
        "cdef int x = f(1)  # cdef int f(int x)",
        "ctypedef int (*compare)(const void*) noexcept nogil",
    ],
)
def test_signature_with_contract(line: str) -> None:
    assert contract_complaints({"tilekv.kvcore.tile.pxd": line}) == []


@pytest.mark.parametrize(
    ("name", "code", "word", "now"),
    [
        ("tilekv.kvcore.base.file.pyx", "cdef class FileView:\n    pass", "FileView", "File"),
        ("tilekv.kvcore.handle.pxd", "cdef readonly View _snapshot", "View", "Snapshot"),
        ("tilekv.store", "return self._view", "_view", "Snapshot"),
        ("tilekv.kvcore.handle.pyx", "cdef class Window:", "Window", "MergeCursor"),
        ("tilekv.commit", "for window in cells: ...", "window", "portion"),
        ("tilekv.kvcore.read.column_reader.pxd", "FEW_LANES = 8", "FEW_LANES", "FieldCursor"),
        ("tilekv.kvcore.hashing.message.h", "int lane;", "lane", "FieldCursor"),
        ("tilekv.kvcore.read.batch_lookup.pyx", "cdef class Parts:", "Parts", "LookupPipeline"),
        ("tilekv.kvcore.batch.read_batch.pyx", "for landing in x:", "landing", "ColumnBuilder"),
        ("tilekv.kvcore.format.tile.pxd", "cdef struct Cut:", "Cut", "ChunkPlan"),
        ("tilekv.kvcore.base.slabs.h", "slab->cut = 0; /* in pieces */", "cut", "ChunkPlan"),
        ("tilekv.kvcore.format.layout.pxd", "PIECE = 1 << 20", "PIECE", "MAX_CHUNK"),
        ("tilekv.kvcore.read.snapshot.pxd", "cdef table_free()", "table_free", "DigestIndex"),
        ("tilekv.kvcore.read.fragment.pxd", "cdef struct Access:", "Access", "ReadContext"),
        ("tilekv.history", "swallowed = set()", "swallowed", "subsumed"),
        ("tilekv.opener", "def relax(self): ...", "relax", "drop_pages"),
        ("tilekv.kvcore.read.snapshot.pyx", "compare_cell(x)", "compare_cell", "match_key"),
        ("tilekv.kvcore.read.snapshot.pyx", "find_in(x)", "find_in", "probe_fragment"),
        ("tilekv.kvcore.read.snapshot.pyx", "x.look_up()", "look_up", "probe"),
        ("tilekv.storage.local", "def hide(self): ...", "hide", "retire"),
        ("tilekv.storage.local", "def erase(self): ...", "erase", "reclaim"),
        ("tilekv.kvcore.base.cache.pxd", "size_t leaving[2]", "leaving", "limbo"),
        ("tilekv.kvcore.base.cache.pxd", "Chunk* evicted", "evicted", "limbo"),
        ("tilekv.kvcore.base.cache.pxd", "int turn", "turn", "epoch"),
        ("tilekv.tools.salvage", "find_remains(x)", "find_remains", "recover_schema"),
        ("tilekv.kvcore.read.batch_lookup.pxd", "tkv_beside* b", "tkv_beside", "tkv_ring"),
        ("tilekv.kvcore.read.column_reader.pxd", "Stretch* at", "Stretch", "Selection"),
        ("tilekv.kvcore.batch.requests.pxd", "cdef class Asked:", "Asked", "Selection"),
        ("tilekv.kvcore.read.snapshot.pxd", "Place* place", "Place", "CellAddress"),
        ("tilekv.kvcore.batch.requests.pyx", "sort_spots(x)", "sort_spots", "NumberedCell"),
        ("tilekv.kvcore.batch.read_batch.pyx", "return LANDED", "LANDED", "TAKEN"),
        ("tilekv.kvcore.base.slabs.h", "tkv_spoil(at, n);", "tkv_spoil", "tkv_poison"),
        ("tilekv.kvcore.write.rows.pyx", "arrow_cells(x)", "arrow_cells", "import_cells"),
        ("tilekv.kvcore.batch.get_many.pxd", "cdef batch_get(x)", "batch_get", "get_many"),
        ("tilekv.kvcore.handle.pyx", "look_up_batch(x)", "look_up_batch", "read_batch"),
        ("tilekv.kvcore.handle.pyx", "self._after_write()", "_after_write", "flush_if_full"),
        ("tilekv.kvcore.base.descriptors.h", "&tkv_files_lock", "tkv_files_lock", "tkv_descr"),
    ],
)
def test_retired_word(name: str, code: str, word: str, now: str) -> None:
    (complaint,) = word_complaints({name: f"# one line before it\n{code}\n"})
    assert complaint.startswith(f"{name}:2 has an identifier {word}, ")
    assert now in complaint


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("tilekv.store", '"""A view."""\nx = "window"  # a cut of the table'),
        ("tilekv.store", "viewed = review = window_of = cutting = accessed = 1"),
        ("tilekv.filters", "window = 8192"),
        ("tilekv.kvcore.codec.bitwidth.pyx", "cdef size_t window"),
        ("tilekv.kvcore.hashing.multi_hash.h", "tkv_lanes lanes[TKV_MOST_LANES];"),
        ("tilekv.kvcore.base.crc32c.pyx", "cdef Py_buffer view"),
        ("tilekv.kvcore.write.memtable.pxd", "cdef uint32_t* _table"),
        ("tilekv.kvcore.write.rows.pxd", "cdef int stage_table(Buffer staged, object table)"),
        ("tilekv.kvcore.base.slabs.h", "int n; /* what is cut,\n   and evicted */ // hide\n"),
    ],
)
def test_no_retired_word(name: str, code: str) -> None:
    assert word_complaints({name: code}) == []


# In halves, or this file would break the rule.
@pytest.mark.parametrize(
    ("name", "halves", "now"),
    [
        ("docs/design.md", "see `read/ lookup`", "read/batch_lookup"),
        ("kvcore/handle.pyx", "from tilekv.kvcore.values. column cimport Column", "values/values"),
        ("ARCHITECTURE.md", "| `kvcore/read/ chunks.pyx` |", "codec/chunk"),
        ("kvcore/batch/ batch_get.pyi", "", "batch/get_many"),
    ],
)
def test_retired_module(name: str, halves: str, now: str) -> None:
    texts = {name.replace("/ ", "/"): halves.replace("/ ", "/").replace(". ", ".")}
    (complaint,) = moved_complaints(texts)
    assert now in complaint


def test_no_retired_module() -> None:
    """Attributes, and what only begins so, are other names."""
    text = "values.column = bread/chunks; read/chunk_reader; values/columns"
    assert moved_complaints({"a.py": text}) == []


@pytest.mark.parametrize("guard", ["TKV_LANES_H", "TILEKV_MULTI_HASH_H"])
def test_guard_of_another_name(guard: str) -> None:
    name = "tilekv.kvcore.hashing.multi_hash.h"
    assert guard_complaints({name: "#ifndef TKV_MULTI_HASH_H\n"}) == []
    assert len(guard_complaints({name: f"/* Digests. */\n#ifndef {guard}\n"})) == 1


def test_subject_that_is_gone() -> None:
    modules = ["tilekv.kvcore.read.snapshot"]
    assert subject_complaints({"test_a.py": '"""kvcore.read.snapshot: a."""'}, modules) == []
    for subject in ("kvcore.search", "kvcore.snapshot", "kvcore.read.snapshots"):
        assert len(subject_complaints({"test_a.py": f'"""{subject}: a."""\n'}, modules)) == 1


@pytest.mark.parametrize(
    ("where", "complaints"),
    [
        ("`a/b.py` `find`, `seek`; `a/c.py` `keep`", 0),
        ("`a/b.py` `find`; `a/c.py` `seek`", 1),
        ("`a/b.py` `fin`", 1),
        ("`a/d.py` `find`", 1),
        ("`find`", 1),
    ],
)
def test_things_that_have_gone_elsewhere(where: str, complaints: int) -> None:
    files = {"a/b.py": "def find(): seek()", "a/c.py": "keep = 1"}
    text = f"## Where is ...?\n\n| what | where |\n|---|---|\n| it | {where} |\n\n## A get\n"

    def read(file: str) -> str:
        if file not in files:
            raise FileNotFoundError(file)
        return files[file]

    assert len(whereabouts_complaints(text, read)) == complaints


def test_missing_docstring() -> None:
    class Planted:
        class Bare(Exception):
            pass

        def bare(self) -> None: ...
        def told(self) -> None:
            """What it does."""

        CONSTANT = 1

    assert docstring_complaints(Planted, ["Bare", "bare", "told", "CONSTANT"]) == [
        "tilekv.Bare has no docstring",
        "tilekv.bare has no docstring",
    ]


# In halves, or this file would break the rule.
@pytest.mark.parametrize(
    "halves", ["# TO DO", "# see FIX ME", "X XX", "cd /wo rk/main", "'/tm p/a'"]
)
def test_unfinished_and_workplace(halves: str) -> None:
    line = "".join(halves.rsplit(" ", 1))
    assert text_complaints({"a.py": f"first\n{line}\n"})[0].startswith("a.py:2")


PAGES: Sources = {
    "docs/design.md": "# Design\n\n## 2 Faces\n\n### 2.1 Store\n\n## 12 The rest\n",
    "docs/format.md": "## 1 Keys\n\n### 1.10 Many\n",
}
# In halves, or this file would cite what is not there.
PAGE = "docs/" + "design.md"


@pytest.mark.parametrize(
    ("text", "section"),
    [
        (f"see {PAGE} 3", "3"),
        (f"({PAGE} 2.2)", "2.2"),
        (f"{PAGE} 1", "1"),
        (f"{PAGE} 2.1 and 4: so", "4"),
        (f"{PAGE} 2, 2.1, 7", "7"),
        (f"# {PAGE} 2 to\n# 9", "9"),
        (f"# as {PAGE}\n    # 5 says", "5"),
        ("docs/" + "format.md 2", "2"),
        (f"{PAGE} 2, docs/" + "format.md 1.1", "1.1"),
        ("see [there](" + "format.md) 1.2", "1.2"),
    ],
)
def test_citation_of_no_section(text: str, section: str) -> None:
    complaints = citation_complaints(PAGES | {"a.py": text})
    assert len(complaints) == 1
    assert complaints[0].startswith("a.py cites docs/")
    assert f".md {section}: " in complaints[0]


@pytest.mark.parametrize(
    "text",
    [f"({PAGE} 2)", f"{PAGE} 2.1 and 12.", f"{PAGE}: 3 of 4 things", f"{PAGE} 2, 10x as fast"],
)
def test_citation_of_a_section(text: str) -> None:
    assert citation_complaints(PAGES | {"a.py": text}) == []


@pytest.mark.parametrize("page", ["DESIGN", "FORMAT"])
def test_citation_of_a_page_elsewhere(page: str) -> None:
    assert len(citation_complaints(PAGES | {"a.py": f"see {page}" + ".md 2"})) == 1


def test_texts_include_the_hidden_and_the_extensionless() -> None:
    assert {"Makefile", ".ci/run", "pyproject.toml", "tests/test_architecture.py"} <= set(
        repository_texts()
    )
