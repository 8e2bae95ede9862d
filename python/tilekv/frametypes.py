"""The columns of the frame that a store was made of: `frame` in `__tilekv.json` (docs/design.md 3.9).

A JSON object::

    key         str, the name of the column that the keys are
    columns     the columns in their order, the key among them, each as a tree of kvcore/values/arrow_schema: its name, the format
                string of Arrow's C data interface, and flags, metadata, children and dictionary where it has them
    metadata    {str: str}, of the whole: pandas' notes of its index and types among them
    categories  {column: [value, ...]}: what a dictionary listed, in its order
    dtypes      {column: str}: pandas' types that neither Arrow nor those notes tell

Nothing in it says how anything is stored: a program that does not know it reads the same values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Tree = dict[str, Any]


@dataclass(frozen=True)
class FrameTypes:
    """What a store remembers of a frame; see the top of this file. Compared by value, hashable.

    Attributes
    ----------
    text : str
        The object, as JSON.
    """

    text: str

    @classmethod
    def of(cls, members: object) -> FrameTypes | None:
        """Of the object; None when it is no such object."""
        if not isinstance(members, dict):
            return None
        columns = members.get("columns")
        if not isinstance(members.get("key"), str) or not isinstance(columns, list):
            return None
        for part in ("metadata", "categories", "dtypes"):
            if not isinstance(members.get(part, {}), dict):
                return None
        for tree in columns:
            if not isinstance(tree, dict) or not all(
                isinstance(tree.get(part), str) for part in ("name", "format")
            ):
                return None
        return cls(json.dumps(members, sort_keys=True))

    @cached_property
    def members(self) -> dict[str, Any]:
        """The object."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @property
    def key(self) -> str:
        """The name of the column that the keys are."""
        return str(self.members["key"])

    @property
    def columns(self) -> list[Tree]:
        """The columns, as trees."""
        found: list[Tree] = self.members["columns"]
        return found

    def zone(self, name: str) -> bytes | None:
        """The time zone of a column of instants, or of lists of such; None for every other."""
        for tree in self.columns:
            if tree["name"] == name:
                inner: Any = values_of(tree)
                while inner.get("children"):
                    inner = inner["children"][-1]
                word, _, zone = str(inner.get("format")).partition(":")
                return zone.encode() or None if word[:2] == "ts" else None
        return None


def values_of(tree: Tree) -> Tree:
    """The type of what a dictionary or runs stand for: of other trees, themselves."""
    while True:
        if tree.get("dictionary") is not None:
            tree = tree["dictionary"]
        elif tree["format"] == "+r" and len(tree.get("children", ())) == 2:
            tree = tree["children"][1]
        else:
            return tree
