"""Rows of every type that Arrow can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

import tilekv
from sample_stores import CODES, some
from tilekv import Attr


def some_array(name: str, n: int) -> Any:
    rng = random.Random(name)
    values = np.array([some(rng, name) for _ in range(n)], name)
    if name == "datetime64[D]":
        return (values.view("i8") % 1_000_000).view(name)  # an Arrow date has 32 bits
    if values.dtype.kind in "mM":
        return (values.view("i8") % 2**40).view(name)  # no NaT, and polars makes ms of seconds
    return values


def everything() -> list[Attr]:
    attrs = [Attr("bytes", bytes), Attr("str", str), Attr("im", "uint8", shape=(4, 2, 3))]
    for name in CODES:
        attrs += [Attr(f"{name} {CODES[name]}", name)]
        attrs += [Attr(f"{name} {CODES[name]} pair", name, shape=2)]
        attrs += [Attr(f"{name} {CODES[name]} runs", name, var=True)]
    return attrs


def filled(db: tilekv.Store, n: int) -> tilekv.Store:
    """Rows with str keys, of everything()."""
    columns: dict[str, Any] = {}
    for attr in db.schema.attrs:
        if attr.type_name in ("bytes", "str"):
            words = ["", "a", "naïve", "中文\0", "x" * 40]
            texts = [words[i % 5] for i in range(n)]
            columns[attr.name] = texts if attr.type_name == "str" else [t.encode() for t in texts]
        elif attr.var:
            values = some_array(attr.type_name, n + 3)
            columns[attr.name] = [values[i : i + i % 4] for i in range(n)]
        else:
            size = int(np.prod(attr.shape or (1,)))
            values = some_array(attr.type_name, n * size)
            columns[attr.name] = values.reshape(n, *(attr.shape or ()))
    db.put_many([f"k{i}" for i in range(n)], **columns)
    return db
