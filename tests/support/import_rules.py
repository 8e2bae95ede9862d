"""House rules of imports: the order that ARCHITECTURE.md draws, who may touch the operating system, and what nothing imports."""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from repository import Sources, code_only, module_of

TESTING = "tilekv.kvcore.testing"


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


# --- the operating system, pickle, and what is for tests --------------------------------------------

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
# Who may load what others have pickled: when the user has asked for it by that name.
LOADS = {"tilekv.cli.moving": "python -m tilekv import --pickle"}


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
        if module_of(name) not in LOADS
        for module, _ in imports_of(text)
        if module.split(".")[0] in PICKLES
    ]


def for_tests_complaints(sources: Sources) -> list[str]:
    """What only tests call stands in a module of its own, which nothing that is not for tests imports."""
    return [
        f"{name} imports {TESTING}, which is for tests"
        for name, text in sources.items()
        for module, names in imports_of(text)
        if TESTING in {module, *(f"{module}.{each}" for each in names)}
    ]
