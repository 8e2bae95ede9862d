"""Ranges of files that are elsewhere: brought together, held until they were read."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tilekv.errors import InvalidValueError

# Two ranges with fewer bytes between them are brought as one: a request costs about as much as so many bytes.
GAP: Final = 64 << 10
# A longer range is brought in parts, at once.
MOST: Final = 8 << 20
# Bytes of small files that are brought at once when they are read one after the other.
BEHIND: Final = 16 << 20
# Whoever reads the end of a larger file that nobody has asked for reads along it: so much of its beginning comes with that.
START: Final = 1 << 20
# Bytes that are held beside what came last for a batch, which is about to be read, however much it is, and beside what came
# before that, up to BEFORE: the threads of a batch read parts of it by turns.
HELD: Final = 32 << 20
BEFORE: Final = 256 << 20
BATCH: Final = 4 << 20  # a look-up brings less, a part of a batch more


class Range(NamedTuple):
    """Bytes of a file, which is named as whoever fetches them names it."""

    file: Hashable
    offset: int
    n: int


Fetch = Callable[[Sequence[Range]], Sequence[bytes]]


class RangeReader:
    """What the files of one storage are read through. Any number of threads.

    Parameters
    ----------
    fetch : callable
        Given Ranges, returns the bytes of each, in one round: all requests at once. It raises what the storage does.
    distrust : callable, optional
        Told a Range of which `fetch` gave what is damaged: it is to ask whoever has it first, and nobody who has kept it.
    """

    def __init__(self, fetch: Fetch, distrust: Callable[[Range], None] | None = None) -> None:
        self._fetch = fetch
        self._distrust = distrust
        self._lock = threading.Lock()
        self._parts: dict[
            Hashable, list[tuple[int, bytes]]
        ] = {}  # by file: offset and bytes, by offset
        # By file: the longest of these. Read without the lock, once for each key of a batch of which all has come.
        self._longest: dict[Hashable, tuple[int, bytes]] = {}
        self._order: list[tuple[Hashable, int]] = []  # the same, the oldest first
        self._bytes = 0
        self._batches = threading.Lock()
        self._came = (0, 0)  # bytes that came for the last two parts of batches
        self._small: dict[Hashable, int] = {}  # files that are brought whole, and their sizes
        self._large: dict[Hashable, int] = {}  # the other files, and theirs
        self._siblings: dict[Hashable, frozenset[Hashable]] = {}  # by file: those of its folder
        self._brought: set[Hashable] = set()
        self._late: dict[Hashable, TimeoutError] = {}
        self._unplanned: set[frozenset[Hashable]] = set()

    def know_small(self, files: Mapping[Hashable, int]) -> None:
        """Told the sizes of the files of a folder that are brought whole, whatever of them is asked for.

        One that is read without having been asked for is brought with its folder. When that happens to a second folder, somebody
        reads along them: what comes behind it is brought at once.
        """
        siblings = frozenset(files)
        with self._lock:
            self._small |= files
            self._siblings |= dict.fromkeys(files, siblings)

    def know_large(self, files: Mapping[Hashable, int]) -> None:
        """Told the sizes of other files."""
        with self._lock:
            self._large |= files

    def forget(self, files: Iterable[Hashable]) -> None:
        """Told that nobody will read these any more."""
        with self._lock:
            for file in files:
                self._small.pop(file, None)
                self._large.pop(file, None)
                self._brought.discard(file)
                self._unplanned.discard(self._siblings.pop(file, frozenset()))

    def longest(self, file: Hashable) -> tuple[int, int]:
        """From where to where the longest part of a file is here."""
        start, data = self._longest.get(file, _NOTHING)
        return start, start + len(data)

    def renew(self, file: Hashable, offset: int, n: int) -> None:
        """Told that n bytes of a file are damaged, perhaps on their way: asks for these again, past whatever keeps them.

        What came with them stays, and is doubted when it is looked at.
        """
        part = Range(file, offset, n)
        if self._distrust is not None:
            self._distrust(part)
        [data] = self._fetch([part])
        _check_length(part, data)
        with self._lock:
            here = self._parts.get(file, [])
            for i, (start, old) in enumerate(here):
                if start < offset + n and offset < start + len(old):
                    here[i] = start, _patched(old, offset - start, data)
                    if self._longest.get(file, _NOTHING)[0] == start:
                        self._longest[file] = here[i]
            if self._find(file, offset, n) is None:
                self._keep(part, data)

    def bring(self, wanted: Iterable[tuple[Hashable, int, int]]) -> None:
        """Have these (file, offset, bytes) here, in one round, if any of them is not."""
        asked = list(wanted)
        # Keys of a batch want the same chunks, and such that touch: each range by itself would take longer than the server.
        ranges = [each for each in touching(asked) if not self._has(*each)]
        if not ranges:
            return
        if sum(n for _, _, n in asked) < BATCH:
            self._bring(ranges)
            return
        with self._batches:  # another part of the same batch may want the same
            self._bring(ranges)

    def _bring(self, wanted: Sequence[tuple[Hashable, int, int]]) -> None:
        with self._lock:
            missing = [part for each in wanted if (part := self._missing(*each)) is not None]
        if not missing:
            return
        asked = list(joined(missing))
        try:
            found = self._fetch(asked)
        except TimeoutError as error:  # whoever reads it does not wait once more
            with self._lock:
                self._late |= dict.fromkeys((part.file for part in asked), error)
            raise
        with self._lock:
            for part, data in zip(asked, found, strict=True):
                self._keep(part, data)
            brought = sum(map(len, found))
            if brought > BATCH:
                self._came = self._came[1], brought
            self._drop(max(brought, HELD + min(self._came[0], BEFORE) + self._came[1]))

    def read(self, file: Hashable, offset: int, n: int) -> memoryview:
        """n bytes of a file from `offset` on: what was brought, or else another round."""
        start, longest = self._longest.get(file, _NOTHING)
        if start <= offset and offset + n <= start + len(longest):
            return memoryview(longest)[offset - start : offset - start + n]
        with self._lock:
            found = self._find(file, offset, n)
            small = self._along(file) if found is None else []
            large = self._large.get(file, 0) if found is None else 0
            late = self._late.pop(file, None)
        if found is not None:
            return found
        if late is not None:
            raise late
        if small:
            try:
                self.bring([(each, 0, self._small[each]) for each in small])
            except (FileNotFoundError, KeyError):  # of another file, perhaps
                self.bring([(file, offset, n)])
            with self._lock:
                found = self._find(file, offset, n)
            if found is not None:
                return found
        if offset + n == large:
            self.bring([(file, offset, n), (file, 0, min(START, large))])
            with self._lock:
                found = self._find(file, offset, n)
            if found is not None:
                return found
        [data] = self._fetch([Range(file, offset, n)])
        _check_length(Range(file, offset, n), data)
        return memoryview(data)

    def _has(self, file: Hashable, offset: int, n: int) -> bool:
        """Whether the longest part that is here has these bytes."""
        start, data = self._longest.get(file, _NOTHING)
        return start <= offset and offset + n <= start + len(data)

    def _along(self, file: Hashable) -> Sequence[Hashable]:
        """What is brought with a small file that nobody has asked for."""
        siblings = self._siblings.get(file)
        if siblings is None:
            return []
        found = [*siblings]
        self._unplanned.add(siblings)
        if len(self._unplanned) > 1:
            left = BEHIND - sum(self._small[each] for each in found)
            for each, size in self._small.items():
                left -= size
                if left < 0:
                    break
                if each not in self._brought and each not in siblings:
                    found.append(each)
        return found

    def _find(self, file: Hashable, offset: int, n: int) -> memoryview | None:
        """Bytes that are here, of one part or of several that join."""
        parts = self._parts.get(file, [])
        at, end = offset, offset + n
        joined: list[memoryview] = []
        while at < end:
            here = self._part_at(parts, at)
            if here is None:
                return None
            start, data = here
            piece = memoryview(data)[at - start : end - start]
            if len(piece) == n:
                return piece
            joined.append(piece)
            at += len(piece)
        return memoryview(b"".join(joined))

    def _part_at(self, parts: Sequence[tuple[int, bytes]], at: int) -> tuple[int, bytes] | None:
        """The part that has most from a byte on."""
        best, most = None, at
        for i in range(bisect_right(parts, at, key=_offset_of) - 1, -1, -1):
            start, data = parts[i]
            if start + len(data) > most:
                best, most = parts[i], start + len(data)
            if start + MOST + GAP < at:
                break
        return best

    def _missing(self, file: Hashable, offset: int, n: int) -> Range | None:
        """What of some bytes is not here, from the first of these to the last."""
        if self._find(file, offset, n) is not None:
            return None
        if file in self._small:
            return Range(file, 0, self._small[file])
        parts = self._parts.get(file, [])
        first, last = offset, offset + n
        while here := self._part_at(parts, first):
            first = here[0] + len(here[1])
        while (here := self._part_at(parts, last - 1)) and here[0] > first:
            last = here[0]
        return Range(file, first, last - first)

    def _keep(self, part: Range, data: bytes) -> None:
        _check_length(part, data)
        if part.file in self._small:
            self._brought.add(part.file)
        if part.n > len(self._longest.get(part.file, _NOTHING)[1]):
            self._longest[part.file] = part.offset, data
        parts = self._parts.setdefault(part.file, [])
        at = bisect_left(parts, part.offset, key=_offset_of)
        if at < len(parts) and parts[at][0] == part.offset:
            if len(parts[at][1]) >= part.n:
                return
            self._bytes += part.n - len(parts[at][1])
            parts[at] = part.offset, data
            return
        parts.insert(at, (part.offset, data))
        self._order.append((part.file, part.offset))
        self._bytes += part.n

    def _drop(self, most: int) -> None:
        """The oldest, until no more than so many bytes are left."""
        gone = 0
        while self._bytes > most and gone < len(self._order):
            file, offset = self._order[gone]
            parts = self._parts[file]
            _, data = parts.pop(bisect_left(parts, offset, key=_offset_of))
            if not parts:
                del self._parts[file]
            if self._longest.get(file, _NOTHING)[0] == offset:
                self._longest.pop(file, None)
            self._bytes -= len(data)
            gone += 1
        del self._order[:gone]


_NOTHING: Final = (0, b"")


def _offset_of(part: tuple[int, bytes]) -> int:
    return part[0]


def _check_length(part: Range, data: bytes) -> None:
    if len(data) != part.n:
        raise OSError(
            f"{part.file}: {len(data)} bytes came, where {part.n} from {part.offset} on were asked for"
        )


def _patched(old: bytes, at: int, data: bytes) -> bytes:
    """Bytes in which `data` stands at `at`, as far as it is inside."""
    first, last = max(at, 0), min(at + len(data), len(old))
    return old[:first] + data[first - at : last - at] + old[last:]


def touching(ranges: Iterable[tuple[Hashable, int, int]]) -> Iterable[Range]:
    """The same bytes in ranges that neither overlap nor touch."""
    by_file: dict[Hashable, list[tuple[int, int]]] = {}
    for file, offset, n in {*ranges}:
        by_file.setdefault(file, []).append((offset, n))
    for file, parts in by_file.items():
        parts.sort()
        start, end = parts[0][0], parts[0][0]
        for offset, n in parts:
            if offset > end:
                yield Range(file, start, end - start)
                start = end = offset
            end = max(end, offset + n)
        yield Range(file, start, end - start)


def joined(ranges: Sequence[Range]) -> Iterable[Range]:
    """The same bytes in as few ranges as are worth a request each."""
    by_file: dict[Hashable, list[Range]] = {}
    for part in ranges:
        if part.offset < 0 or part.n <= 0:
            raise InvalidValueError(f"{part} is no range")
        by_file.setdefault(part.file, []).append(part)
    for file, parts in by_file.items():
        parts.sort()
        start, end = parts[0].offset, parts[0].offset
        for part in parts:
            if part.offset > end + GAP or part.offset + part.n > start + MOST:
                if end > start:
                    yield Range(file, start, end - start)
                start = end = part.offset
            end = max(end, part.offset + part.n)
        yield Range(file, start, end - start)
