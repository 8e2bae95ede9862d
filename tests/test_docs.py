"""The pages say all there is, and draw what is so. Their examples are run by `make docs`."""

import inspect
import re
import runpy
from pathlib import Path

import tilekv
from house_rules import ROOT

DOCS = ROOT / "docs"


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.rst").read_text()
    shown = set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE))
    shown |= set(re.findall(r"``(\w+)``", page))
    errors = {
        name
        for name in tilekv.__all__
        if getattr(tilekv, name) in vars(tilekv.errors).values()  # by automodule
    }
    assert sorted(set(tilekv.__all__) - errors - shown) == []
    assert sorted(shown - set(tilekv.__all__)) == []


def test_help_shows_what_every_public_name_takes() -> None:
    """No `*args, **kwargs`; what nobody makes, such as a Batch, takes nothing."""
    shown = {}
    for name in tilekv.__all__:
        made = getattr(tilekv, name)
        if not callable(made) or (isinstance(made, type) and issubclass(made, BaseException)):
            continue
        shown[name] = made
        if isinstance(made, type) and not issubclass(made, int):
            members = {
                f"{name}.{each}": getattr(made, each) for each in dir(made) if each[0] != "_"
            }
            shown |= {each: one for each, one in members.items() if inspect.isroutine(one)}
    for handed_out in ("Batch", "Scan", "VarColumn"):
        del shown[handed_out]
    assert len(shown) > 150
    taken = {name: set(inspect.signature(made).parameters) for name, made in shown.items()}
    assert {name for name, names in taken.items() if names & {"args", "kwargs"}} == set()


def test_the_drawing_is_of_a_store_as_it_is_written(tmp_path: Path) -> None:
    """Else draw it again: python docs/drawing.py docs/format.svg."""
    drawing = runpy.run_path(str(DOCS / "drawing.py"))["drawing"]
    assert drawing(tmp_path) == (DOCS / "format.svg").read_text()


def test_every_page_is_in_the_contents() -> None:
    contents = (DOCS / "index.md").read_text().split("```{toctree}")[1].split("```")[0]
    pages = {page.stem for page in DOCS.glob("*.md")} | {page.stem for page in DOCS.glob("*.rst")}
    assert {line for line in contents.split("\n") if line and line[0] != ":"} == pages - {"index"}


def test_every_support_module_is_told() -> None:
    told = re.findall(r"`([\w.]+)`(?=[^|\n]*\|)", (ROOT / "tests" / "README.md").read_text())
    there = [
        path for path in (ROOT / "tests" / "support").iterdir() if path.suffix in {".py", ".c"}
    ]
    names = {path.name.removesuffix(".py") for path in there}
    assert sorted(names - set(told)) == []


def test_every_promise_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(\w+/\w+\.py)::(\w+)`", (DOCS / "guarantees.md").read_text())
    assert len(named) > 25
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"
