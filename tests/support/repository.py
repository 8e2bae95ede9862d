"""The sources and texts of the repository, as the rules read them."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "kvcore"
PACKAGE = ROOT / "python" / "tilekv"

Sources = dict[str, str]  # module name, or a path below ROOT -> text


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


def code_only(text: str) -> str:
    """Python or Cython source with its comments and string literals emptied, lines kept."""
    pattern = r"(\"\"\"|''')(?:\\.|(?!\1).)*\1|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*"
    return re.sub(
        pattern,
        lambda match: "" if match[0][0] == "#" else '""' + "\n" * match[0].count("\n"),
        text,
        flags=re.DOTALL,
    )


def c_code_only(text: str) -> str:
    """C source with its comments and literals emptied, lines kept."""
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    return re.sub(pattern, lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


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
NOT_OURS = {"_build", "build", "dist", "fixtures", "golden", "__pycache__"}


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
