"""Checking a store from end to end (DESIGN.md 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilekv.kvcore.check import check_fragment
from tilekv.kvcore.fragment import Fragment


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    fragment, file : str
        The fragment and the file in it.
    offset : int or None
        The byte of the file where the damaged part begins; None when it has no place of its own.
    message : str
        What is wrong.
    """

    fragment: str
    file: str
    offset: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.fragment}/{self.file}"
        return f"{place if self.offset is None else f'{place}, byte {self.offset}'}: {self.message}"


def verify_store(fragments: Iterable[Fragment]) -> list[Problem]:
    """All that is wrong with some fragments."""
    return [
        Problem(fragment.name, file, offset, message)
        for fragment in fragments
        for file, offset, message in check_fragment(fragment)
    ]
