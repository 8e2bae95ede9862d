"""What the reference shows, and what it must not: an extension of Sphinx, whose warnings `make docs` takes for errors.

A signature is what a caller gives, with types; the pages have every public name of the adapters, and nothing private.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from typing import TYPE_CHECKING, Any

import tilekv

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

log = logging.getLogger("sphinx.reference")  # below Sphinx's own, which counts warnings

# What is imported beside tilekv itself.
ADAPTERS = ("tilekv.dask", "tilekv.fsspec", "tilekv.ray", "tilekv.torch", "tilekv.zarr")
# What fsspec asks its file systems for, and no program by name.
OF_FSSPEC = {"tilekv.fsspec.TilekvFile", "tilekv.fsspec.TilekvTransaction"}
# Handed out by tilekv and made by nobody else: how is no concern of a reader.
HANDED_OUT = {
    f"tilekv.{name}"
    for name in ("Backup", "Imported", "Info", "Memoized", "Problem", "Salvage", "Store", "Upkept")
}
# What `inspect` gives of a function that does not say what it takes, or of a default without words of its own.
LOOSE = re.compile(r"\*args|\*\*kwargs| at 0x|= ?\.\.\.|\(\.\.\.\)")


def complaint(name: str, kind: str, signature: str | None) -> str:
    """What is wrong with a signature; nothing if it is what a caller gives."""
    if signature is None:
        return f"{name} has no signature" if kind in {"function", "method"} else ""
    return f"{name} shows {signature}" if LOOSE.search(signature) else ""


def is_public(name: str) -> bool:
    """Whether a name is one that a program may use: of tilekv itself, its errors or an adapter."""
    parts = name.split(".")
    if parts[0] != "tilekv" or any(part.startswith("_") for part in parts):
        return False
    return parts[1] in tilekv.__all__ or ".".join(parts[:2]) in {"tilekv.errors", *ADAPTERS}


def names_of(module: str) -> set[str]:
    """The classes and functions that an adapter offers."""
    held = importlib.import_module(module)
    offered = getattr(held, "__all__", None) or [
        name
        for name, each in vars(held).items()
        if (inspect.isclass(each) or inspect.isfunction(each)) and each.__module__ == module
    ]
    return {f"{module}.{name}" for name in offered if name[0] != "_"} - OF_FSSPEC


def constructor(one: type) -> str:
    """What `__init__` takes: a metaclass that keeps instances, as fsspec's, takes anything, and is what is seen first."""
    from sphinx.util.inspect import stringify_signature

    own = inspect.signature(one.__init__)  # type: ignore[misc]
    taken = list(own.parameters.values())[1:]
    shown = own.replace(parameters=taken, return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True)


def show_signature(
    app: Sphinx,
    kind: str,
    name: str,
    one: Any,
    options: Any,
    signature: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Leave out how things are made that nobody makes; say what is loose."""
    if name in HANDED_OUT:
        return "", None
    if kind == "class" and complaint(name, kind, signature):
        signature, returned = constructor(one), None
    if wrong := complaint(name, kind, signature):
        log.warning("the reference: %s", wrong)
    return None if signature is None else (signature, returned)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Say which names are private, and which are missing."""
    objects = env.domains.python_domain.objects
    shown = {name for name, entry in objects.items() if not entry.aliased}
    for name in sorted(shown):
        if not is_public(name):
            log.warning("the reference: %s is private", name)
    for name in sorted(set().union(*map(names_of, ADAPTERS)) - shown):
        log.warning("the reference: %s is missing", name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Join the build."""
    app.connect("autodoc-process-signature", show_signature)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
