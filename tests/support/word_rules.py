"""House rules of words: those that were given up."""

import re

from repository import Sources, c_code_only, code_only, module_of

# Identifiers, without the underscores before them, and what is said now; then the modules and packages where the word has the
# meaning that it kept. docs/glossary.md has the words of today.
RETIRED: dict[str, tuple[str, tuple[str, ...]]] = {
    r"FileView": ("File", ()),
    # Python's buffers, NumPy's method and Arrow's type are called so.
    r"[Vv]iews?": (
        "Snapshot, or File",
        (
            "tilekv.kvcore.base.crc32c",
            "tilekv.kvcore.batch.results",
            "tilekv.kvcore.codec.chunk",
            "tilekv.kvcore.codec.pipeline",
            "tilekv.kvcore.format.tile",
            "tilekv.kvcore.testing",
            "tilekv.kvcore.values",
            "tilekv.kvcore.write.arrays",
            "tilekv.legacy.fragment",
            "tilekv.tiledb.mapitem",
        ),
    ),
    r"Window|window": (
        "MergeCursor, or a portion of cells",
        (
            "tilekv.filters",
            "tilekv.kvcore.codec",
            "tilekv.kvcore.testing",
            "tilekv.schema",
            "tilekv.torch",
        ),
    ),
    r"(\w+_)?(lanes?|LANES?)(_\w+)?|Lanes?": (
        "FieldCursor: a lane is a place in a vector register",
        ("tilekv.kvcore.hashing.multi_hash", "tilekv.kvcore.hashing.multi_hash_kernels"),
    ),
    r"Parts": ("LookupPipeline", ()),
    r"[Ll]andings?": ("ColumnBuilder", ()),
    r"[Cc]uts?|plan_cuts": ("ChunkPlan, and PlannedChunk for one of its chunks", ()),
    r"PIECE": ("MAX_CHUNK", ()),
    r"table_(build|bucket|bytes|fragment|free)": ("index_build and so on, of a DigestIndex", ()),
    r"[Aa]ccess": ("ReadContext", ()),
    r"swallowed": ("subsumed", ()),
    r"relax": ("drop_pages", ()),
    r"compare_cell": ("match_key", ()),
    r"find_in": ("probe_fragment", ()),
    r"look_up": ("probe", ()),
    r"hide": ("retire", ()),
    r"erase": ("reclaim", ()),
    r"leaving|evicted|turn": ("epoch, or limbo", ()),
    r"(\w+_)?[Rr]emains": ("recover_schema", ()),
    r"(\w+_)?beside(_\w+)?": ("tkv_ring, the ring of jobs", ()),
    r"[Ss]tretch(es)?|Asked": ("Selection", ()),
    r"Places?": ("CellAddress", ()),
    r"(\w+_)?[Ss]pots?": ("CellAddress, or NumberedCell where it is sorted", ()),
    r"[Ll]anded|LANDED": ("Outcome, and TAKEN", ()),
    r"(tkv_)?spoil|TKV_SPOIL_H": ("tkv_poison", ()),
    r"tkv_files_\w+|TKV_FILES_H": ("tkv_descriptors_lock and so on", ()),
    r"arrow_cells": ("import_cells, of arrow_import", ()),
    r"batch_get": ("get_many, or read_batch", ()),
    r"look_up_batch": ("read_batch", ()),
    r"after_write": ("flush_if_full", ()),
    r"TKV_(LANES|LEVELS)_H": ("the name of the header", ()),
}


def word_complaints(sources: Sources) -> list[str]:
    """Identifiers that were given up for another word."""
    complaints = []
    for name, text in sources.items():
        module = module_of(name)
        refused = [
            (re.compile(word), now)
            for word, (now, places) in RETIRED.items()
            if not any(module == place or module.startswith(place + ".") for place in places)
        ]
        code = c_code_only(text) if name.endswith(".h") else code_only(text)
        for number, line in enumerate(code.splitlines(), 1):
            complaints += [
                f"{name}:{number} has an identifier {identifier}, a retired word: say {now}"
                for identifier in dict.fromkeys(re.findall(r"[A-Za-z_]\w*", line))
                for word, now in refused
                if word.fullmatch(identifier.lstrip("_"))
            ]
    return complaints


# Modules of the compiled core that have another name now. (folder, module), or this file would name them.
MOVED = {
    ("batch", "batch_get"): "batch/get_many, or batch/read_batch",
    ("read", "chunks"): "read/chunk_reader, or codec/chunk",
    ("read", "lookup"): "read/batch_lookup",
    ("values", "arrow_cells"): "values/arrow_import",
    ("values", "column"): "values/values",
}


def moved_complaints(texts: Sources) -> list[str]:
    """Names of modules that were given up: of the modules themselves, in imports and in what people read."""
    complaints = []
    for (folder, module), now in MOVED.items():
        old = re.compile(rf"(?<![\w.]){folder}/{module}\b|\bkvcore\.{folder}\.{module}\b")
        for name, text in texts.items():
            if old.search(name):
                complaints.append(f"{name} has a retired name: say {now}")
            complaints += [
                f"{name}:{number} names {found[0]}, which is called {now} now"
                for number, line in enumerate(text.splitlines(), 1)
                if (found := old.search(line))
            ]
    return complaints
