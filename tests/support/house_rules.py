"""The house rules: import order, who may touch the operating system, stubs, exception contracts, docstrings, retired words.

Each rule is a function from sources to a list of complaints; test_architecture.py holds them against the repository.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "kvcore"
PACKAGE = ROOT / "python" / "tilekv"

Sources = dict[str, str]  # module name, or a path below ROOT -> text
TESTING = "tilekv.kvcore.testing"


def core_sources() -> Sources:
    """The compiled modules: .pxd and .pyx of one name are one module, told apart by their suffix."""
    return {
        ".".join(["tilekv.kvcore", *path.relative_to(CORE).parts]): path.read_text()
        for path in sorted(CORE.rglob("*.p[yx][xd]"))
    }


def python_sources() -> Sources:
    return {
        ".".join(["tilekv", *path.relative_to(PACKAGE).with_suffix("").parts]): path.read_text()
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def header_sources() -> Sources:
    return {
        ".".join(["tilekv.kvcore", *path.relative_to(CORE).parts]): path.read_text()
        for path in sorted(CORE.rglob("*.h"))
    }


def module_of(name: str) -> str:
    """tilekv.kvcore.tile.pxd -> tilekv.kvcore.format.tile, tilekv.storage.__init__ -> tilekv.storage."""
    return re.sub(r"\.(pyx|pxd|h|__init__)$", "", name)


# --- imports -------------------------------------------------------------------------------------


def code_only(text: str) -> str:
    """Python or Cython source with its comments and string literals emptied, lines kept."""
    pattern = r"(\"\"\"|''')(?:\\.|(?!\1).)*\1|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*"
    return re.sub(
        pattern,
        lambda match: "" if match[0][0] == "#" else '""' + "\n" * match[0].count("\n"),
        text,
        flags=re.DOTALL,
    )


def imports_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """(module, names from it) of every import and cimport, wherever it stands; no names for `import module`."""
    text = code_only(text)
    for names in re.findall(r"^[ \t]*c?import[ \t]+([\w., \t]+)", text, re.MULTILINE):
        for name in names.split(","):
            yield name.split()[0], []
    pattern = r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]*)"
    for module, names in re.findall(pattern, text, re.MULTILINE):
        yield module, [name.split()[0] for name in names.strip("() \t").split(",") if name.strip()]


def graph(sources: Sources) -> dict[str, set[str]]:
    """For every module the modules of tilekv that it imports, itself left out."""
    modules = {module_of(name) for name in sources}
    edges: dict[str, set[str]] = {module: set() for module in modules}
    for name, text in sources.items():
        for module, names in imports_of(text):
            if module.split(".")[0] != "tilekv":
                continue
            submodules = {f"{module}.{each}" for each in names} & modules
            own = not names or any(f"{module}.{each}" not in modules for each in names)
            edges[module_of(name)] |= submodules | ({module} if own else set())
    for module, imported in edges.items():
        imported.discard(module)
    return edges


def ranks(architecture: str) -> dict[str, int]:
    """The order that ARCHITECTURE.md draws: `->` goes up, commas stand between equals.

    kvcore/ lies below python/, but for errors, which lies below all and imports nothing of tilekv.
    The package itself gathers what __main__ uses.
    """
    order: list[list[str]] = []
    for tree, prefix in (("kvcore", "tilekv.kvcore."), ("python", "tilekv.")):
        drawing = re.search(
            rf"^{tree}/ +([\w.]+(?:(?:,\s*|\s+-> )[\w.]+)*)", architecture, re.MULTILINE
        )
        assert drawing, f"ARCHITECTURE.md has no line `{tree}/   a -> b, c -> d`"
        levels = re.split(r"\s+-> ", drawing[1])
        order += [[prefix + name for name in re.split(r",\s*", level)] for level in levels]
    found = {name: rank for rank, level in enumerate(order, 1) for name in level}
    return found | {
        "tilekv.errors": 0,
        "tilekv": 2 * len(order),
        "tilekv.__main__": 2 * len(order) + 1,
    }


def rank_of(module: str, order: dict[str, int]) -> int | None:
    """A module of a package (tilekv.storage.local) has the rank of the package, unless it is drawn itself."""
    while module not in order and module.count(".") > 1:
        module = module.rpartition(".")[0]
    return order.get(module)


def import_complaints(sources: Sources, order: dict[str, int]) -> list[str]:
    complaints = []
    edges = graph(sources)
    for name, text in sources.items():
        for module, _ in imports_of(text):
            if module.startswith("."):
                complaints.append(f"{name} imports {module}: write it out, from tilekv...")
    for module, imported in sorted(edges.items()):
        rank = rank_of(module, order)
        if rank is None:
            complaints.append(f"{module} has no place in the import order of ARCHITECTURE.md")
            continue
        for other in sorted(imported):
            above = rank_of(other, order)
            if module == "tilekv.errors":
                complaints.append(f"{module} imports {other}: it imports nothing of tilekv")
            elif above is None:
                complaints.append(f"{module} imports {other}, which does not exist or has no place")
            elif above > rank:
                complaints.append(f"{module} imports {other}, which is above it")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as cycle:
        complaints.append("imports go in a circle: " + " <- ".join(cycle.args[1]))
    return complaints


# --- the operating system, and pickle ------------------------------------------------------------

# Whole modules that reach files. pathlib is among them: it opens, renames and removes as easily as os does.
OS_MODULES = {"fcntl", "glob", "mmap", "pathlib", "shutil", "tempfile"}
# What of os is no file system.
OS_HARMLESS = {
    "PathLike",
    "cpu_count",
    "environ",
    "fsdecode",
    "fsencode",
    "fspath",
    "getpid",
    "register_at_fork",
    "sched_getaffinity",
    "strerror",
    "urandom",
}
OS_HEADERS = {"fcntl.h", "sys/mman.h", "sys/stat.h", "unistd.h"}
OS_CIMPORTS = {"posix.fcntl", "posix.mman", "posix.stat", "posix.unistd"}
STORAGE = {
    "tilekv.storage": "the door to the operating system",
    "tilekv.kvcore.base.file": "maps and reads the files that storage opened, and opens again what it gave back",
    "tilekv.cli": "reads and writes the user's own files for import, export, get and put",
    "tilekv.__main__": "reads and writes the user's own files for import, export, get and put",
}
PICKLES = {"cPickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}


def os_uses(text: str) -> Iterator[str]:
    """Names by which a module reaches the file system."""
    code = code_only(text)
    own_open = re.search(r"^(c?p?def)\b[^\n(]*\bopen\(", code, re.MULTILINE) is not None
    for module, names in imports_of(text):
        own_open |= "open" in names
        if module.split(".")[0] in OS_MODULES or module in OS_CIMPORTS or module.startswith("os."):
            yield module
        elif module == "os":
            yield from (f"os.{name}" for name in names if name not in OS_HARMLESS)
        elif module == "io":
            yield from (f"io.{name}" for name in names if name in {"FileIO", "open"})
    for header in re.findall(r'^cdef extern from ["<]*([\w./]+)', text, re.MULTILINE):
        if header in OS_HEADERS:
            yield header
    yield from re.findall(r"\bio\.(?:open|FileIO)\b", code)
    yield from (use for use in re.findall(r"\bos\.\w+", code) if use[3:] not in OS_HARMLESS)
    if not own_open and re.search(r"(?<![\w.])open\(", code):
        yield "open()"


def os_complaints(sources: Sources) -> list[str]:
    complaints = []
    for name, text in sources.items():
        module = module_of(name)
        if any(module == allowed or module.startswith(allowed + ".") for allowed in STORAGE):
            continue
        complaints += [
            f"{name} uses {use}: only storage touches the operating system; give it bytes or a File"
            for use in sorted(set(os_uses(text)))
        ]
    return complaints


def pickle_complaints(sources: Sources) -> list[str]:
    return [
        f"{name} imports {module}: stored bytes must never become code"
        for name, text in sources.items()
        for module, _ in imports_of(text)
        if module.split(".")[0] in PICKLES
    ]


# --- Cython --------------------------------------------------------------------------------------

PYTHON_TYPES = {
    "bytearray",
    "bytes",
    "dict",
    "frozenset",
    "list",
    "memoryview",
    "object",
    "set",
    "str",
    "tuple",
    "type",
}


def for_tests_complaints(sources: Sources) -> list[str]:
    """What only tests call stands in a module of its own, which nothing that is not for tests imports."""
    return [
        f"{name} imports {TESTING}, which is for tests"
        for name, text in sources.items()
        for module, names in imports_of(text)
        if TESTING in {module, *(f"{module}.{each}" for each in names)}
    ]


def stub_complaints(core: Iterable[str]) -> list[str]:
    files = set(core)
    return [
        f"kvcore/{file} has no stub: add kvcore/{file[:-3]}pyi"
        for file in sorted(files)
        if file.endswith(".pyx") and f"{file[:-3]}pyi" not in files
    ]


def signatures(text: str) -> Iterator[str]:
    """The C functions that a .pxd or .pyx declares outside `cdef extern`, one line each."""
    code = re.sub(
        r"\([^()]*(?:\([^()]*\)[^()]*)*\)",
        lambda match: match[0].replace("\n", " "),
        code_only(text),
    )
    extern = False
    for line in code.splitlines():
        if line and not line[0].isspace():
            extern = line.startswith("cdef extern")
        if not extern and re.match(
            r"\s*(cdef|cpdef|ctypedef)\b(?!\s+(class|struct|enum|union|packed))[^=]*\(", line
        ):
            yield line.strip()


def contract_complaints(core: Sources) -> list[str]:
    """C signatures without an exception contract. What returns a Python object has one: NULL."""
    classes = {
        each
        for text in core.values()
        for each in re.findall(r"^\s*cdef class (\w+)", code_only(text), re.MULTILINE)
    }
    objects = PYTHON_TYPES | classes
    complaints = []
    for name, text in core.items():
        for line in signatures(text):
            head = re.sub(r"^(cdef|cpdef|ctypedef)\s+((inline|api|public)\s+)*", "", line)
            result, _, rest = head.partition("(")
            words = re.split(r"[\s\[]+", result.strip())
            is_pointer = "*" in result or rest.startswith("*")
            is_object = not is_pointer and (len(words) == 1 or words[0] in objects)
            if not is_object and not re.search(r"\)\s*(noexcept|except)\b", line):
                complaints.append(f"{name} does not say noexcept or except: {line}")
    return complaints


# --- words ---------------------------------------------------------------------------------------

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
        ("tilekv.filters", "tilekv.kvcore.codec", "tilekv.kvcore.testing", "tilekv.schema"),
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
    r"TKV_(LANES|LEVELS)_H": ("the name of the header", ()),
}


def c_code_only(text: str) -> str:
    """C source with its comments and literals emptied, lines kept."""
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


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


def guard_complaints(headers: Sources) -> list[str]:
    """Headers whose guard has another name than they have. What is included several times has none."""
    complaints = []
    for name, text in headers.items():
        guard = f"TKV_{name.split('.')[-2].upper()}_H"
        complaints += [
            f"{name} is guarded by {found}: say {guard}"
            for found in re.findall(r"^#ifndef (\w+_H)$", text, re.MULTILINE)
            if found != guard
        ]
    return complaints


def subject_complaints(tests: Sources, modules: Iterable[str]) -> list[str]:
    """Tests whose first line says that they are of a compiled module that is not there."""
    known = {module.removeprefix("tilekv.") for module in modules}
    return [
        f"{name} is of {subject}, which is no module"
        for name, text in tests.items()
        for subject in re.findall(r"\bkvcore(?:\.\w+)+", text.partition("\n")[0])
        if subject not in known
    ]


# --- texts ---------------------------------------------------------------------------------------


def docstring_complaints(namespace: object, names: Iterable[str]) -> list[str]:
    """Public classes and functions without a docstring of their own. Constants have none."""
    complaints = []
    for name in names:
        value = getattr(namespace, name)
        # A class without one would answer with its base's.
        text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        if (inspect.isclass(value) or inspect.isroutine(value)) and not text:
            complaints.append(f"tilekv.{name} has no docstring")
    return complaints


UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X])\b")
WORKPLACE = re.compile(r"(?<![\w.}])/(work|tmp|root|home)/\w")
TEXTS = {
    "",
    ".c",
    ".h",
    ".in",
    ".md",
    ".pxd",
    ".py",
    ".pyi",
    ".pyx",
    ".sh",
    ".toml",
    ".txt",
    ".yml",
}
NOT_OURS = {"build", "dist", "fixtures", "golden", "__pycache__"}


def repository_texts() -> Sources:
    """Every file that a person wrote, by its path below ROOT."""
    found = {}
    for directory, folders, files in os.walk(ROOT):
        folders[:] = [
            folder
            for folder in folders
            if folder not in NOT_OURS and (folder[0] != "." or folder in {".ci", ".github"})
        ]
        for file in files:
            path = Path(directory, file)
            if path.suffix in TEXTS and file != ".git":  # which is a file in a linked work tree
                found[str(path.relative_to(ROOT))] = path.read_text()
    return found


def text_complaints(texts: Sources) -> list[str]:
    complaints = []
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := UNFINISHED.search(line):
                complaints.append(f"{name}:{number} says {found[0]}: do it, or open an issue")
            if found := WORKPLACE.search(line):
                complaints.append(
                    f"{name}:{number} names a path of somebody's machine: {found[0]}..."
                )
    return complaints


def whereabouts_complaints(architecture: str, read: Callable[[str], str]) -> list[str]:
    """The table of ARCHITECTURE.md that says where things are: a file in backticks, and behind it names that stand in it."""
    table = architecture.partition("## Where is ...?")[2].partition("\n## ")[0]
    complaints = []
    for where in re.findall(r"^\| [^|`]+ \| (.*) \|$", table, re.MULTILINE):
        text = None
        for name in re.findall(r"`([^`]+)`", where):
            if "/" in name:
                file = name
                try:
                    text = read(file)
                except FileNotFoundError:
                    complaints.append(f"ARCHITECTURE.md: there is no {file}")
                    break
            elif text is None or not re.search(rf"\b{name}\b", text):
                complaints.append(f"ARCHITECTURE.md: no {name} where it is said to be, in {where}")
    return complaints


# Where a page is cited by section: docs/design.md 5, docs/format.md 2.3 and 8.6 to 8.8. A number is one of a section only when
# it stands right behind the page's name, or behind such a number.
CITED = re.compile(
    r"(?:\bdocs/|\]\()(design|format)\.md\)?((?:(?:,| and| to)? \d+(?:\.\d+)*(?!\.?\w))*)"
)
OUTSIDE = re.compile(r"\b(?:DESIGN|FORMAT)\.md")
SPECIFICATION = ("docs/design.md", "docs/format.md")


def sections(page: str) -> set[str]:
    """The numbers of a page's headings."""
    return set(re.findall(r"^#+ (\d+(?:\.\d+)*) ", page, re.MULTILINE))


def citation_complaints(texts: Sources) -> list[str]:
    """Citations of sections that the pages do not have, or of pages that are not in the repository."""
    known = {page: sections(texts[page]) for page in SPECIFICATION}
    complaints = []
    for name, text in texts.items():
        # A citation may go on in the next line.
        joined = re.sub(r"\n[ \t]*(?:#|\*|//)?[ \t]*", " ", text)
        for kind, numbers in CITED.findall(joined):
            page = f"docs/{kind}.md"
            complaints += [
                f"{name} cites {page} {number}: there is no such section"
                for number in re.findall(r"\d+(?:\.\d+)*", numbers)
                if number not in known[page]
            ]
        complaints += [
            f"{name} cites {found}: what it says is in {' or '.join(SPECIFICATION)}"
            for found in sorted(set(OUTSIDE.findall(text)))
        ]
    return complaints
