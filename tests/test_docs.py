"""The pages say all there is, and draw what is so. Their examples are run by `make docs`."""

import hashlib
import inspect
import json
import re
import runpy
import statistics
import struct
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from repository import ROOT

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


# What an operator or a statement calls; what is left out means the same everywhere.
OPERATORS = {
    *(
        "__getitem__",
        "__setitem__",
        "__delitem__",
        "__contains__",
        "__iter__",
        "__next__",
        "__len__",
        "__bool__",
    ),
    *(
        "__enter__",
        "__exit__",
        "__call__",
        "__ior__",
        "__eq__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
    ),
    *("__int__", "__float__", "__bytes__"),
    *("__arrow_c_schema__", "__arrow_c_array__", "__arrow_c_stream__"),
}
# What Python says of an operator of a compiled class that says nothing itself. Of __bool__ Cython lets it say that always.
PYTHONS_OWN = {
    getattr(each, name).__doc__
    for each in (bytearray, int, type(iter([])))
    for name in OPERATORS - {"__bool__"}
    if hasattr(each, name)
}


def public_classes() -> dict[str, type]:
    named = {name: getattr(tilekv, name) for name in tilekv.__all__}
    return {name: each for name, each in named.items() if isinstance(each, type)}


def public_callables() -> dict[str, Any]:
    """Functions, classes and their methods, by name; no exceptions."""
    shown = {}
    for name in tilekv.__all__:
        made = getattr(tilekv, name)
        if not callable(made) or (isinstance(made, type) and issubclass(made, BaseException)):
            continue
        shown[name] = made
        if isinstance(made, type) and not issubclass(made, int):
            members = {
                f"{name}.{each}": getattr(made, each)
                for each in dir(made)
                if each[0] != "_" or each in OPERATORS
            }
            shown |= {each: one for each, one in members.items() if inspect.isroutine(one)}
    return shown


def public_properties() -> dict[str, Any]:
    """Properties and fields of public classes, by name."""
    return {
        f"{name}.{each}": one
        for name, made in public_classes().items()
        for base in made.__mro__
        if base.__module__.startswith("tilekv.")
        for each, one in vars(base).items()
        if each[0] != "_" and inspect.isdatadescriptor(one)
    }


def is_told_elsewhere(method: Any) -> bool:
    """Of every object, or of abstract classes; or made by dataclass."""
    code = getattr(method, "__code__", None)
    return (
        method is getattr(object, method.__name__, None)
        or getattr(method, "__module__", None) == "collections.abc"
        or (code is not None and code.co_filename == "<string>")
    )


def test_help_shows_what_every_public_name_takes() -> None:
    """No `*args, **kwargs`, and no default that only an address tells; what nobody makes, such as a Batch, takes nothing."""
    shown = public_callables()
    for handed_out in ("Batch", "Scan", "VarColumn"):
        del shown[handed_out]
    assert len(shown) > 200
    signatures = {name: inspect.signature(made) for name, made in shown.items()}
    loose = {"args", "kwargs"}
    assert {name for name, one in signatures.items() if loose & set(one.parameters)} == set()
    assert {name: str(one) for name, one in signatures.items() if " at 0x" in str(one)} == {}


REFERENCE = runpy.run_path(str(DOCS / "reference.py"))


def test_the_reference_refuses_what_is_loose_or_private() -> None:
    """In `make docs`, by docs/reference.py."""
    complaint, is_public = REFERENCE["complaint"], REFERENCE["is_public"]
    assert complaint("tilekv.open", "function", "(uri: str, mode: str = 'r') -> Store") == ""
    assert complaint("tilekv.memoize", "function", "(key: Callable[[...], str] | None)") == ""
    for loose in ("(*args, **kwargs)", "(default=<object object at 0x7f>)", "(cache=...)", "(...)"):
        assert complaint("tilekv.open", "function", loose) == f"tilekv.open shows {loose}"
    assert complaint("tilekv.Store.get", "method", None) == "tilekv.Store.get has no signature"
    public = {"tilekv.Store.get", "tilekv.errors.ClosedError", "tilekv.torch.StoreDataset"}
    private = {
        "tilekv.store.Store",
        "tilekv.Store._flush",
        "tilekv.kvcore.handle.Handle",
        "numpy.x",
    }
    assert {name for name in public | private if is_public(name)} == public
    assert "tilekv.zarr.TilekvStore" in REFERENCE["names_of"]("tilekv.zarr")
    assert REFERENCE["names_of"]("tilekv.dask") > {"tilekv.dask.to_store"}
    assert REFERENCE["HANDED_OUT"] <= {f"tilekv.{name}" for name in tilekv.__all__}


def test_every_public_method_and_operator_has_a_docstring() -> None:
    silent = [
        name
        for name, made in public_callables().items()
        if not is_told_elsewhere(made) and (not made.__doc__ or made.__doc__ in PYTHONS_OWN)
    ]
    assert silent == []


def test_every_public_property_is_told() -> None:
    """By its own docstring, or under Attributes in its class's."""
    classes, silent = public_classes(), []
    for name, one in public_properties().items():
        owner, _, attribute = name.partition(".")
        told = (inspect.getdoc(classes[owner]) or "").partition("Attributes\n---")[2]
        if not one.__doc__ and not re.search(
            rf"^(\w+, )*{attribute}(, \w+)* : ", told, re.MULTILINE
        ):
            silent.append(name)
    assert len(public_properties()) > 50
    assert silent == []


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("get", ["Parameters", "Returns", "Raises"]),
        ("get_many", ["Parameters", "Returns", "Raises"]),
        ("get_range", ["Parameters", "Returns", "Raises"]),
        ("put_many", ["Parameters", "Raises"]),
        ("delete_many", ["Parameters", "Raises"]),
        ("read", ["Parameters", "Returns", "Raises"]),
        ("scan", ["Parameters", "Returns", "Raises"]),
    ],
)
def test_compiled_methods_say_what_they_take_give_and_raise(name: str, sections: list[str]) -> None:
    method = getattr(tilekv.Store, name)
    text = inspect.getdoc(method) or ""
    assert re.findall(r"^(\w+)\n-+$", text, re.MULTILINE) == sections
    parts = dict(zip(sections, re.split(r"^\w+\n-+\n", text, flags=re.MULTILINE)[1:], strict=True))
    told = re.findall(r"^[*]*(\w+) :", parts["Parameters"], re.MULTILINE)
    signature = inspect.signature(method)
    assert told == list(signature.parameters)[1:]
    taken = list(signature.parameters.values())[1:]
    assert all(each.annotation is not each.empty for each in taken)
    assert signature.return_annotation is not signature.empty
    # Whoever resolves them finds them: dispatchers, documentation.
    assert set(typing.get_type_hints(method)) == {*told, "return"}
    raised = re.findall(r"^(\w.*)$", parts["Raises"], re.MULTILINE)
    errors = [each for line in raised for each in line.split(", ")]
    assert {each for each in errors if each != "OSError"} <= set(tilekv.__all__)


def test_annotations_check_nothing() -> None:
    """Compiled methods are annotated for readers: they take other types, or refuse them in their own words."""
    with tilekv.open("memory://annotated", "a") as db:
        db.put_many(["a"], [b"1"])
        assert db.get_many("a" for _ in range(1)) == [b"1"]
        assert db.read({"a": 0}, None)["value"].to_list() == [b"1"]
        assert [len(batch) for batch in db.scan(None, np.int64(1))] == [1]
        assert len(db.read(("a",), {"value": 0})) == 1
        for rows in (2.5, True):
            with pytest.raises(tilekv.WrongTypeError, match=f"not {type(rows).__name__}"):
                db.scan(rows=rows)  # type: ignore[arg-type]
    assert tilekv.Key(0, bytearray(b"a")) == tilekv.Key(0, b"a")


def test_docstrings_name_classes_that_are_public() -> None:
    shown = public_callables() | public_properties()
    texts = {name: made.__doc__ or "" for name, made in shown.items()}
    named = {
        (name, each)
        for name, text in texts.items()
        for each in re.findall(r"(?<!`)`(?:tilekv\.)?([A-Z]\w*)[\w.]*`(?!`)", text)
    }
    assert len(named) > 20
    assert {(name, each) for name, each in named if each not in tilekv.__all__} == set()


def test_the_drawing_is_of_a_store_as_it_is_written(tmp_path: Path) -> None:
    """Else draw it again: python docs/drawing.py docs/format.svg."""
    drawing = runpy.run_path(str(DOCS / "drawing.py"))["drawing"]
    assert drawing(tmp_path) == (DOCS / "format.svg").read_text()


def test_the_first_drawing_has_the_digest_of_its_key() -> None:
    """As docs/format.md 1 has it, by hashlib."""
    words = re.findall(r"<text[^>]*>([^<]*)</text>", (DOCS / "lookup.svg").read_text())
    key = next(each for each in words if each.startswith("db["))[4:-2].encode()
    message = struct.pack("<BQ", 4, len(key)) + key
    digest = hashlib.blake2b(message, digest_size=16).hexdigest()
    assert digest == "".join(each for each in words if re.fullmatch("[0-9a-f]{16}", each))


HEADLINE = runpy.run_path(str(ROOT / "bench" / "headline.py"))


@pytest.mark.parametrize("name", HEADLINE["PICTURES"])
def test_the_first_pictures_are_of_the_results_that_are_kept(name: str) -> None:
    """Else draw them again: python -m bench.headline."""
    picture = HEADLINE["PICTURES"][name]
    shown = HEADLINE["ratios"](picture)
    assert len(picture.rivals) == 3
    assert {rival for row in shown.values() for rival in row} == set(picture.rivals.values())
    drawn = (HEADLINE["RESULTS"] / f"headline-{name}.svg").read_text()
    assert HEADLINE["drawing"](picture, shown) == drawn
    page = (DOCS / "performance.md").read_text()
    assert f"headline-{name}.svg" in page.split("## What is lost")[0]


def test_a_picture_has_the_ratios_of_the_rounds() -> None:
    """The table that is drawn says what the record of the same run does."""
    rounds = json.loads((HEADLINE["RESULTS"] / "sentence.json").read_text())["figures"]["sentence"]
    shown = HEADLINE["ratios"](HEADLINE["PICTURES"]["stores"])
    for row, less in (("load", False), ("delete", False), ("open", True), ("bytes on disk", True)):
        ours, theirs = (
            rounds[{"bytes on disk": "disk"}.get(row, row)][who] for who in ("tilekv", "lmdb")
        )
        times = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        assert shown[row]["LMDB"] == pytest.approx(1 / times if less else times, abs=0.01)
    # Two digits would not do: 12.8 k/s beside 887.4.
    cold = HEADLINE["ratios"](HEADLINE["PICTURES"]["beyond-memory"])
    assert 1 / cold["get, missing keys"]["RocksDB"] == pytest.approx(69.3, abs=0.1)


def test_every_page_is_in_the_contents() -> None:
    contents = re.findall(r"```{toctree}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    files = [*DOCS.glob("*.md"), *DOCS.glob("*.rst"), *DOCS.glob("ten-lines/*.md")]
    pages = {file.relative_to(DOCS).with_suffix("").as_posix() for file in files}
    named = [line for each in contents for line in each.split("\n") if line and line[0] != ":"]
    assert sorted(named) == sorted(pages - {"index"})


TEN_LINES = runpy.run_path(str(ROOT / "tools" / "ten_lines.py"))


def test_pages_of_ten_lines_are_such() -> None:
    """`make docs` runs each from a wheel, with the one extra that it names."""
    pages = {path.stem: path.read_text() for path in TEN_LINES["FOLDER"].iterdir()}
    extras = {name: TEN_LINES["read"](text).extra for name, text in pages.items()}
    assert extras == {name: name for name in ("lmdb", "pandas", "torch", "zarr")}
    page = TEN_LINES["read"](pages["pandas"])
    assert page.printed == ["{'year': 2015, 'kind': 'tasks'}", "True"]
    compile(page.code, "pandas.md", "exec")


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        ("```python\n", "```python\n\n\n\n", "11 lines of code, not 10 at most"),
        ("# Store", "```\npip install tilekv\n```\n# Store", "one block"),
        ("# Store", "    pip install tilekv\n\n# Store", "one block"),
        ("[pandas]", "[pandas]` and `tilekv[zarr]", "one extra"),
        ("print(", "repr(", "prints something"),
    ],
)
def test_a_page_of_more_is_refused(found: str, put: str, said: str) -> None:
    text = (DOCS / "ten-lines" / "pandas.md").read_text()
    changed = text.replace(found, put)
    assert changed != text
    with pytest.raises(ValueError, match=said):
        TEN_LINES["read"](changed)


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
