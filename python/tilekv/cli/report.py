"""info, manifest, verify and salvage: what a store is, whether it is sound, and what is left of one that is not."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import Final

import numpy as np

from tilekv.cli.options import Opening, Options
from tilekv.cli.text import counted, size_text
from tilekv.drawing import table
from tilekv.executors import processes
from tilekv.schema import Attr
from tilekv.storage import open_storage
from tilekv.tools.manifest import write_manifest
from tilekv.tools.salvage import salvage
from tilekv.tools.verify import examine

NEWEST: Final = 10  # fragments that info prints; --json has all


def show_info(uri: str, as_json: bool, opening: Opening) -> int:
    """Print schema, counts, sizes and fragments, newest first."""
    with opening.to_read(uri) as db:
        schema, fragments = db.schema, db.fragments
        info = db.info()
    facts = asdict(info) | {"keys": info.live, "advice": info.advice}
    if as_json:
        facts["attrs"] = [
            {
                "name": attr.name,
                "dtype": attr.type_name,
                "shape": attr.shape,
                "var": attr.var,
                "filters": [repr(each) for each in attr.filters],
            }
            for attr in schema.attrs
        ]
        facts["fragments"] = [
            {
                "name": each.name,
                "cells": each.cells,
                "tombstones": each.tombstones,
                "t1": each.t1,
                "t2": each.t2,
                "stored_bytes": each.stored_bytes,
            }
            for each in fragments
        ]
        print(json.dumps(facts, indent=2))
        return 0
    lines = [("store", facts["uri"])]
    lines += [("attribute", attr_text(attr)) for attr in schema.attrs]
    lines += [
        ("digest", schema.digest),
        ("capacity", f"{schema.capacity:,} cells a tile"),
        ("keys", f"{facts['keys']:,}"),
        ("cells", f"{facts['cells']:,}, {facts['tombstones']:,} of them tombstones"),
        ("stored", f"{facts['stored_bytes']:,} bytes in {counted(facts['fragments'], 'fragment')}"),
        ("dead", f"about {facts['dead_bytes']:,} of those bytes"),
    ]
    if info.expired is not None:
        lines.append(
            ("expiry", f"entries can expire; {counted(info.expired, 'key has', 'keys have')}")
        )
    if info.superseded:
        replaced = counted(info.superseded, "replaced fragment")
        lines.append(("past", f"{info.superseded_bytes:,} bytes in {replaced}"))
    if not info.old:
        kept = "for ever" if info.history is None else f"for {info.history:,g} s"
        lines.append(("history", f"what is replaced is kept {kept}"))
    if info.advice:
        lines.append(("advice", info.advice))
    rows = [
        (
            f"{np.datetime64(each.t2, 'ms')}Z",
            f"{each.cells:,}",
            size_text(each.stored_bytes),
            each.name,
        )
        for each in fragments[:NEWEST]
    ]
    for name, fact in lines:
        print(f"{name:<10} {fact}")
    if not table(sys.stdout, ("written", ">cells", ">stored", "fragment"), rows):
        for moment, cells, size, fragment in rows:
            print(f"  {moment}  {cells:>13} cells  {size:>9}  {fragment}")
    if len(fragments) > NEWEST:
        print(f"  and {len(fragments) - NEWEST:,} older ones; --json lists all")
    return 0


def show_manifest(uri: str, options: Options) -> int:
    """Write a manifest, and say of how much."""
    fragments, size = write_manifest(uri, storage_options=options)
    print(f"a manifest of {counted(fragments, 'fragment')}, {size:,} bytes")
    return 0


def attr_text(attr: Attr) -> str:
    """An attribute with its filters: `rgb: uint8 (3,), nullable, ZstdFilter(level=1)`."""
    form = " of any length" if attr.var and attr.dtype.kind not in "SU" else f" {attr.shape or ''}"
    kind = f"{attr.name}: {attr.type_name}{form}".rstrip()
    return ", ".join([kind, *(["nullable"] if attr.nullable else []), *map(repr, attr.filters)])


def show_problems(uri: str, workers: int | None, as_json: bool, options: Options) -> int:
    """Check the whole store, by so many processes, and print all that is wrong with it.

    Returns
    -------
    int
        The exit code: 1 for a damaged store.
    """
    storage = open_storage(uri, options=options)
    with nullcontext() if workers is None else processes(workers) as executor:
        found = examine(storage, executor, options)
    if as_json:
        facts = {
            "uri": uri,
            "sound": not found.problems,
            "fragments": found.fragments,
            "cells": found.cells,
            "problems": [asdict(each) for each in found.problems],
        }
        print(json.dumps(facts, indent=2))
    elif found.problems:
        for problem in found.problems:
            print(problem)
        print(f"damaged: {counted(len(found.problems), 'problem')}")
    else:
        print(
            f"sound: {counted(found.cells, 'cell')} in {counted(found.fragments, 'fragment')}, "
            "every checksum and every digest"
        )
    return 1 if found.problems else 0


def salvage_store(
    old: str, new: str, stale: str | None, as_json: bool, shown: bool, options: Options
) -> int:
    """Copy what can be proven out of a damaged store; print what could not be.

    Returns
    -------
    int
        The exit code: 1 when anything may be missing from the new store.
    """
    found = salvage(old, new, stale=stale, progress=shown, storage_options=options)
    whole = not (found.stale or found.lost or found.unreadable)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return 0 if whole else 1
    for problem in found.problems:
        print(problem)
    for what in found.rebuilt:
        print(f"rebuilt: {what}")
    print(f"copied {counted(found.copied, 'entry', 'entries')}, proven and current")
    if found.stale:
        where = f"they are in {stale}" if stale else "--stale STORE keeps them"
        print(f"{counted(found.stale, 'entry', 'entries')} may be out of date: {where}")
    if found.lost:
        print(f"{counted(found.lost, 'entry', 'entries')} cannot be read")
    for name in found.unreadable:
        print(f"nothing of {name} can be read, nor how much it held")
    return 0 if whole else 1
