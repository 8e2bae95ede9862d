"""House rules of texts: docstrings, what is finished, and that what a text names is there."""

import inspect
import re
from collections.abc import Callable, Iterable

from repository import Sources


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


def subject_complaints(tests: Sources, modules: Iterable[str]) -> list[str]:
    """Tests whose first line says that they are of a compiled module that is not there."""
    known = {module.removeprefix("tilekv.") for module in modules}
    return [
        f"{name} is of {subject}, which is no module"
        for name, text in tests.items()
        for subject in re.findall(r"\bkvcore(?:\.\w+)+", text.partition("\n")[0])
        if subject not in known
    ]
