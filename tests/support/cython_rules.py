"""House rules of the compiled core: stubs, exception contracts, guards of headers."""

import re
from collections.abc import Iterable, Iterator

from repository import Sources, code_only

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
