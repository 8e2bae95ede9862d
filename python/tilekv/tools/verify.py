"""Checking a store from end to end (docs/design.md 8.4)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Final, NamedTuple

from tilekv.config import Config
from tilekv.engine import layout_of, open_engine
from tilekv.errors import CorruptionError
from tilekv.executors import checked_executor, run
from tilekv.history import listed
from tilekv.kvcore.check.check import check_fragment
from tilekv.kvcore.read.fragment import Fragment
from tilekv.names import FRAGMENT_METADATA, FragmentName, vac_owner
from tilekv.newer import check_newer
from tilekv.opener import Opener
from tilekv.probe import Kind, probe
from tilekv.storage import Listing, Storage, open_storage
from tilekv.tools.problem import DAMAGE, Problem
from tilekv.tools.recover_schema import half_removed, open_partial, recover_schema

_CACHE: Final = 16 << 20  # bytes of decoded chunks
MOST_TASKS: Final = 256
_MOST_OPEN: Final = 1000  # fragments, beside the one that is checked


class Findings(NamedTuple):
    """What checking a whole store found.

    Attributes
    ----------
    problems : list of Problem
        All that is wrong.
    fragments, cells : int
        How many were looked at; replaced fragments are among them.
    """

    problems: list[Problem]
    fragments: int
    cells: int


def verify(
    uri: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> list[Problem]:
    """Check every file of a store, whether it opens or not.

    More than `Store.verify`, which checks what one handle sees: both copies of the schema, the lists of replaced fragments, the
    replaced fragments themselves, and folders that hold a fragment under a name that is none. Damage to one file does not keep
    the others from being checked. Nothing is mapped, so that a disk that fails gives an error and no signal.

    Parameters
    ----------
    uri : str or os.PathLike
        A store of tilekv; of a store of TileDB 1.x, which has no checksums, what can be checked.
    executor : concurrent.futures.Executor, optional
        Who checks the fragments, some at a time: processes, or machines that reach the store at the same URI. What a process that
        died had is checked by this one.
    storage_options : mapping, optional
        As of `open`.

    Returns
    -------
    list of Problem
        All that is wrong; empty when the store is sound.

    Raises
    ------
    StoreNotFoundError, FormatError
        When there is no store, or one of another program.
    WrongTypeError
        For an executor that is none.
    OSError, MemoryError
        When the system gives no descriptor, no memory, no permission or no answer: that tells nothing of the store.
    """
    storage = open_storage(uri, False, storage_options)
    return examine(storage, checked_executor(executor), storage_options).problems


def examine(
    storage: Storage,
    executor: Executor | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Findings:
    """As `verify`, with counts."""
    found = probe(storage)
    listing = found.listing
    ours = found.kind is Kind.TILEKV or any(map(FragmentName.parse, listing.folders))
    if found.kind is Kind.OLD or not ours:
        engine = open_engine(found, "r", None, Config())
        seen = engine.opener.snapshot().fragments
        return Findings(verify_store(seen), len(seen), sum(fragment.cells for fragment in seen))
    check_newer(storage, listing)
    try:
        opener, problems = _opener(storage, listing)
    except CorruptionError as error:
        return Findings([Problem._of(error)], 0, 0)
    checked: dict[str, int] = {}  # cells by fragment
    gone = half_removed(opener)
    names = []
    for folder in dict.fromkeys((*listing.folders, *storage.past())):
        if folder in gone:
            continue
        if FragmentName.parse(folder) is None:
            problems += _strange_folder(storage, folder)
        else:
            names.append(folder)

    def here(task: _Task) -> _Checked:
        return _check_some(opener, task.names)

    def done(found: _Checked) -> None:
        problems.extend(found.problems)
        checked.update(found.cells)

    size = -(-len(names) // MOST_TASKS) or 1
    tasks = [
        _Task(storage.uri, storage_options, names[first : first + size])
        for first in range(0, len(names), size)
    ]
    run(executor, _check_there, tasks, done, here=here)
    problems.sort(key=lambda problem: problem.fragment)  # tasks end in any order
    try:
        if opener.record() is None:
            problems += _wrong_lists(storage, listing)
    except DAMAGE as error:
        problems.append(Problem._of(error))
    if not problems:
        # What only the record, or all lists together, show; and what has taken the place of others meanwhile.
        try:
            newer = [name for name in opener.snapshot().names if name not in checked]
        except CorruptionError as error:
            return Findings([Problem._of(error)], len(checked), sum(checked.values()))
        for name in newer:
            problems += _check(opener, name, checked)
    return Findings(problems, len(checked), sum(checked.values()))


class _Task(NamedTuple):
    """Fragments to be checked, and what another process opens them by."""

    uri: str
    storage_options: Mapping[str, object] | None
    names: list[str]


class _Checked(NamedTuple):
    """What is wrong with some fragments, and the cells of those that were looked at."""

    problems: list[Problem]
    cells: dict[str, int]


def _opener(storage: Storage, listing: Listing) -> tuple[Opener, list[Problem]]:
    """An opener of whatever schema there is, and what is wrong with that; CorruptionError where there is none."""
    recovered = recover_schema(storage, listing)
    layout = layout_of(recovered.schema, recovered.numbers)
    return Opener(storage, layout, _CACHE, False, _MOST_OPEN), list(recovered.problems)


def _check_there(task: _Task) -> _Checked:
    """In whatever process this is."""
    storage = open_storage(task.uri, False, task.storage_options)
    opener, _ = _opener(storage, storage.list())
    return _check_some(opener, task.names)


def _check_some(opener: Opener, names: Iterable[str]) -> _Checked:
    cells: dict[str, int] = {}
    problems = [problem for name in names for problem in _check(opener, name, cells)]
    return _Checked(problems, cells)


def _check(opener: Opener, name: str, checked: dict[str, int]) -> list[Problem]:
    """What is wrong with a fragment that was listed: nothing when a vacuum has removed it since."""
    found: list[Problem] = []
    try:
        fragment = open_partial(opener, name, found)
        if fragment is not None:
            found += verify_store([fragment])
    except FileNotFoundError as error:
        found.append(Problem._of(error, name))
        fragment = None
    if found and not opener.is_there(name):
        return []
    if fragment is not None:
        checked[name] = fragment.cells
    return found


def _strange_folder(storage: Storage, folder: str) -> list[Problem]:
    """A fragment that was renamed is not looked for: its name is all that tells a fragment from another folder."""
    try:
        inside = storage.files(folder)
    except DAMAGE as error:
        return [Problem._of(error)]
    if FRAGMENT_METADATA not in inside:
        return []
    message = "this folder holds a fragment, and its name is not one of a fragment: it is not read"
    return [Problem(folder, FRAGMENT_METADATA, None, message)]


def _wrong_lists(storage: Storage, listing: Listing) -> list[Problem]:
    """Lists of replaced fragments that no consolidation wrote, or not for the fragment they are named after."""
    problems = []
    for file in listing.files:
        owner = vac_owner(file)
        if owner is None or owner not in listing.folders:
            continue  # left by a crash: it counts for nothing
        try:
            listed(storage.read(file), owner)
        except FileNotFoundError:
            pass  # a vacuum has removed what it listed
        except CorruptionError as error:
            problems.append(Problem._of(error))
    return problems


def verify_store(fragments: Iterable[Fragment]) -> list[Problem]:
    """All that is wrong with some fragments."""
    return [
        Problem(fragment.name, file, offset, message)
        for fragment in fragments
        for file, offset, message in check_fragment(fragment)
    ]
