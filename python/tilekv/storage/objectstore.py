"""Stores in a bucket: of S3 and its like, of Google Cloud Storage, of Azure (docs/design.md 6.12, docs/format.md 2.7)."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tilekv.clock import milliseconds, seconds
from tilekv.errors import (
    CorruptionError,
    InvalidValueError,
    ReadOnlyError,
    SnapshotGone,
    StoreBusyError,
    StoreNotFoundError,
)
from tilekv.kvcore.base.file import File
from tilekv.names import (
    ASIDE,
    DESCRIPTOR,
    FRAGMENT_METADATA,
    LOCK,
    MANIFEST,
    PAST,
    STAGED,
    FragmentName,
    record_number,
)
from tilekv.sealed import is_sealed
from tilekv.storage.objectclient import CACHE, WEB, Client, Entry, Stored, client_of
from tilekv.storage.objectcreation import Creation, settle, store_id
from tilekv.storage.objectdraft import ObjectDraft
from tilekv.storage.objectlayout import (
    ALIVE,
    BUILD,
    CHOOSING,
    CLOCK,
    CREATING,
    GONE,
    LEASE,
    PENDING,
    RECORD,
    Aside,
    owner_of,
    split_build,
    split_token,
)
from tilekv.storage.objectlisting import Seen, look
from tilekv.storage.objectlock import Lease
from tilekv.storage.objectmanifest import SMALL, Listed, Manifest
from tilekv.storage.process import has_ended
from tilekv.storage.protocol import (
    DRAFT_S,
    SMALL_FILE,
    Listing,
    Offer,
    RecordFile,
    check_component,
)
from tilekv.storage.ranges import Range, RangeReader

if TYPE_CHECKING:
    from tilekv.storage.blockcache import CachedFiles

# The mark of what was removed outlives it for so long: longer than any listing takes that may still show some of it.
GONE_MS: Final = 600_000
TELLS_MS: Final = 1000  # what servers tell of when an object was written is exact to this
CLOCK_S: Final = 600  # for how long the server's clock is known
WHOLE: Final = 64 << 10  # a data file of no more bytes is brought as a whole
AHEAD_S: Final = 10  # for how long what was asked for ahead is new
SPARED: Final = 64  # requests that a new manifest must spare a reader
LISTED_S: Final = 0.2  # a listing that took longer may have missed what a merge has moved meanwhile: the record tells of that
_TRIES: Final = 20
_MOVES: Final = 2
_SEQ: Final = re.compile(rb'^ ?"seq": ?([0-9]{1,19}),?$', re.MULTILINE)


class ObjectStorage:
    """A Storage under a prefix of a bucket, or, of a store that is being made there, a build's."""

    cached: CachedFiles | None = (
        None  # what reads data, and whose cache has metadata, if there is one
    )

    def __init__(self, client: Client, prefix: str, build: str = "") -> None:
        self.client = client
        self._prefix = prefix
        self._build = build
        self.data = f"{prefix}/" if prefix else ""
        self.root = f"{self.data}{ASIDE}/{build}/" if build else self.data
        self.aside = f"{self.root}{ASIDE}/"
        self._shown: set[str] = set()  # fragments
        # Of those of them that were looked at. It never changes.
        self._metadata: dict[str, Stored] = {}
        self._looked = 0.0  # when, in seconds
        self._seen: Seen | None = None  # at the last listing
        self._ahead: _Ahead | None = None
        self._manifest: Manifest | None = None  # the one that fits what was listed
        self._manifest_read: tuple[str | None, Manifest | None] = None, None  # by its version
        self._fresh: dict[
            str, dict[str, File]
        ] = {}  # what was just put there or is expected, until it is opened
        self._left: set[str] = set()  # what is in the past, and nowhere else
        self._record: Stored | None = None
        self._numbered = False
        self._creation: bytes | None = None  # of a store that is appearing
        self._identity: str | None = None
        self._identity_tag: str | None = None  # the version of the descriptor that has it
        self._clock: tuple[float, float] | None = None  # seconds here, ms there
        self._reader = RangeReader(self._fetch, self._distrust)
        self._opened: dict[str, Sequence[str]] = {}  # by fragment: the keys of its data

    @property
    def uri(self) -> str:
        """`scheme://bucket/prefix`."""
        place = self.client.uri_of(self._prefix).rstrip("/")
        return f"{place}/{ASIDE}/{self._build}" if self._build else place

    # --- the root ---

    def exists(self) -> bool:
        """Tell whether any object is there."""
        return not self.client.is_empty(self.root)

    def is_empty(self, folder: str = "") -> bool:
        """Tell whether nothing is there but what writes have left that were broken off."""
        if folder:
            return self.client.is_empty(f"{self.data}{check_component(folder)}/")
        try:
            return not any(self.list())
        except StoreNotFoundError:
            return True

    def list(self) -> Listing:
        """List the first level of the root, and what lies aside."""
        if self._ahead is not None and (seen := self._ahead.take_seen()) is not None:
            return self._listed(seen, True)
        return self._listed(self._look(), True)

    def outline(self) -> Listing:
        """The same without fragments, which may cost requests."""
        return self._listed(self._look(), False)

    def _listed(self, seen: Seen, fragments: bool) -> Listing:
        names = {name for name in seen.folders if not seen.aside.hides(name)}
        files: Collection[str] = seen.files
        if seen.aside.creating and (found := self._get(f"{self.aside}{CREATING}")):
            self._creation = found.data
            creation = Creation.of(found.data)
            if creation.is_late(self._get_data(self.root + DESCRIPTOR)):
                creation, self._creation = Creation({}), None
            if creation.replaces:
                return Listing(tuple(sorted(creation.folders)), tuple(sorted(creation.files)))
            names.update(creation.folders)
            files = {*files, *creation.files}
        else:
            self._creation = None
        shown = {name for name in names if seen.shows(name)}
        if not fragments:
            names = {name for name in names if FragmentName.parse(name) is None}
        elif seen.within is None and files:
            known = self._known_shown()
            if self._manifest is not None:
                known |= self._manifest.fragments.keys()
            shown = known & names
        else:
            # Of all that is there; or of a store that was removed, whose prefixes some servers go on listing.
            known = self._shown - shown
        unknown = sorted(names - shown) if seen.within is None or self._creation else []
        there = self.client.at_once(self._find, unknown)
        shown |= {name for name, is_there in zip(unknown, there, strict=True) if is_there}
        if fragments:
            for name in known - shown:
                self._forget_shown(name)
            self._shown.update(name for name in shown if FragmentName.parse(name))
        return Listing(tuple(sorted(shown & names)), tuple(sorted(files)))

    def _look(self) -> Seen:
        """What is there; StoreNotFoundError when nothing is."""
        many = self._seen is not None and self._seen.within is None
        seen = look(self.client, self.root, many)
        self._numbered = seen.aside.numbered
        self._seen = seen
        self._manifest = self._fitting(seen) if seen.within is None else None
        if not (seen.folders or seen.files or seen.lies_aside):
            self._missing()
        return seen

    def _fitting(self, seen: Seen) -> Manifest | None:
        """The manifest, if it is of what was listed."""
        tag, manifest = self._manifest_read
        if tag is None or tag != _tag(seen.manifest):
            found = self._get_listed(f"{self.aside}{MANIFEST}", seen.manifest)
            manifest = Manifest.of(found) if found else None
            self._manifest_read = _tag(found), manifest
        if manifest is None or _tag(manifest.record) != _tag(seen.record):
            return None
        if _tag(manifest.descriptor) != _tag(seen.files.get(DESCRIPTOR)):
            return None
        return manifest

    def _metadata_of(self, name: str) -> Stored | None:
        """The metadata of a fragment that is shown, if it is here."""
        known = self._metadata.get(name)
        if known is None and self._manifest is not None and name in self._manifest.fragments:
            data = self._manifest.fragments[name].metadata
            known = None if data is None else Stored(data, self._manifest.moment, {})
        return known

    def spare(self, folders: Iterable[str], always: bool = False) -> int:
        """Write a manifest of these, `always` or if it lacks many of them; then nobody needs it, and errors are passed over."""
        if always:
            return self._spare({*folders}, 0)
        with suppress(OSError):
            return self._spare({*folders}, SPARED + 1)
        return 0

    def _spare(self, names: Collection[str], least: int) -> int:
        """Write a manifest if it lacks so many of these at least: its bytes, or 0."""
        seen = self._seen
        _, manifest = self._manifest_read
        old = manifest.fragments if manifest is not None else {}
        if seen is None or len({*names} - old.keys()) < least or self._build:
            return 0

        def listed(name: str) -> Listed:
            metadata = self._metadata_of(name) or self._get(
                f"{self.root}{name}/{FRAGMENT_METADATA}"
            )
            known = (seen.within or {}).get(name)
            files = {file: entry.size for file, entry in known.items()} if known else None
            if files is None:
                files = dict(old[name].files) if name in old else self.files(name)
            data = metadata.data if metadata else None
            if data is not None:
                files[FRAGMENT_METADATA] = len(data)
            return Listed(files, data if data is not None and len(data) <= SMALL else None)

        record, descriptor = self._record, self._get(self.root + DESCRIPTOR)
        if descriptor is None or _tag(record) != _tag(seen.record):
            return 0
        each = sorted(names)
        found = dict(zip(each, self.client.at_once(listed, each), strict=True))
        data = Manifest(descriptor, record, found).to_bytes()
        self.client.put(f"{self.aside}{MANIFEST}", data)
        self._manifest_read = None, Manifest(descriptor, record, found)
        return len(data)

    def _look_aside(self) -> Aside:
        aside = Aside.of(self.client.list_all(self.aside))
        self._numbered = aside.numbered
        return aside

    def ahead(self) -> None:
        """Ask for what an open will ask for, at once: the descriptor, the record, a second listing, metadata.

        What comes is right only if the descriptor and the record were the same in both listings. Then neither was changed
        before the second one began.
        """
        first, manifest = self._seen, self._manifest
        if first is not None and manifest is not None and self._shown <= manifest.fragments.keys():
            # Nothing but what its writer has seen together: a second listing would tell no more.
            self._ahead = _Ahead(seconds(), manifest.descriptor, manifest.record, first)
            return
        if first is None or first.within is None or first.aside.creating or first.aside.numbered:
            return
        here = first.files.get(DESCRIPTOR)
        if here is None or here.version["e_tag"] is None or self._build:
            return
        self._recall_metadata(self._shown, first)
        names = [name for name in self._shown if self._metadata_of(name) is None]

        def record() -> Stored | None:
            return self._get(f"{self.aside}{RECORD}") if first.record else None

        calls: list[Callable[[], Any]] = [self._look, record]
        calls += [partial(self._get, self.root + DESCRIPTOR)]
        calls += [partial(self._read_metadata, name) for name in names]
        second, recorded, descriptor, *_ = self.client.together(*calls)
        if second.within is None or second.aside.creating or descriptor is None:
            return
        tags = {_tag(first.files.get(DESCRIPTOR)), _tag(second.files.get(DESCRIPTOR))}
        records = {_tag(first.record), _tag(second.record), _tag(recorded)}
        if tags == {_tag(descriptor)} and len(records) == 1:
            self._ahead = _Ahead(seconds(), descriptor, recorded, second)

    def _known_shown(self) -> set[str]:
        """What was shown at the last listing, unless that is long ago: it may be gone since, and so may the mark of that."""
        now = seconds()
        if now - self._looked > GONE_MS / 2000:
            self._shown.clear()
            self._metadata.clear()
        self._looked = now
        return set(self._shown)

    def _find(self, name: str) -> bool:
        """Whether a prefix is a fragment that is shown, or has anything else in it: some servers list those of what is gone."""
        if FragmentName.parse(name):
            return self._find_metadata(name)
        return not self.client.is_empty(f"{self.data}{name}/")

    def _find_metadata(self, name: str) -> bool:
        """Read the metadata of a fragment; False when it is not shown."""
        if self._read_metadata(name):
            return True
        # An answer that it is not there is not believed where a listing has it.
        there = FRAGMENT_METADATA in self.client.list_all(f"{self.root}{name}/")
        return there and self._read_metadata(name)

    def _read_metadata(self, name: str) -> bool:
        for place in self._places_of_shown():
            found = self._get(f"{place}{name}/{FRAGMENT_METADATA}")
            if found is not None:
                self._metadata[name] = found
                self._shown.add(name)
                self._keep_metadata(name, found)
                return True
        return False

    def _keep_metadata(self, name: str, found: Stored) -> None:
        if self.cached is not None:
            self.cached.cache.put_object(name, found)

    def _recall_metadata(self, names: Iterable[str], seen: Seen) -> None:
        """Take the metadata of these from the cache, if a listing has it and the cache, too."""
        if self.cached is None or seen.within is None:
            return
        for name in names:
            entry = seen.within.get(name, {}).get(FRAGMENT_METADATA)
            if entry is not None and entry.size and self._metadata_of(name) is None:
                found = self.cached.cache.get_object(name, entry)
                if found is not None:
                    self._metadata[name] = found

    def _forget_shown(self, name: str) -> None:
        """Forget one that is not shown any more."""
        self._shown.discard(name)
        self._metadata.pop(name, None)
        keys = self._opened.pop(name, ())
        self._reader.forget(keys)
        if self.cached is not None:
            self.cached.forget(keys)

    def _places_of_shown(self) -> Sequence[str]:
        """Prefixes of where the metadata of a shown fragment can be."""
        if self._creation is None or not (build := Creation.of(self._creation).build):
            return [self.root]
        return [f"{self.aside}{build}/", self.root]

    def read(self, name: str) -> bytes:
        """Return an object of the root."""
        check_component(name)
        ahead = self._ahead.take_descriptor() if self._ahead and name == DESCRIPTOR else None
        found = ahead.data if ahead else self._read(name)
        if name == DESCRIPTOR and found is not None:
            # Of a store that is gone the id stays: who still has it open must not write where it was.
            self._identity = store_id(found)
            if ahead:
                self._identity_tag = _tag(ahead)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.uri}/{name}")
        if len(found) > SMALL_FILE:
            raise CorruptionError(name, 0, f"it has {len(found)} bytes, over {SMALL_FILE}")
        return found

    def _read(self, name: str) -> bytes | None:
        creation = self._creating() if self._creation is not None else None
        if creation and creation.replaces:
            return creation.files.get(name)
        found = self._get_data(self.root + name)
        if found is None and name == DESCRIPTOR and not creation:
            creation = self._creating()  # it is being moved
        return creation.files.get(name) if found is None and creation else found

    def _creating(self) -> Creation | None:
        """The store that is appearing, moving or going now."""
        now = self._get(f"{self.aside}{CREATING}")
        return Creation.of(now.data) if now else None

    def identity(self) -> str | None:
        """The id in the descriptor that is in its place now: not of a store that is being moved."""
        found = self._get(self.root + DESCRIPTOR)
        identity = store_id(found.data if found else None)
        if identity == self._identity:
            self._identity_tag = _tag(found)
        return identity

    def put(self, name: str, data: bytes) -> None:
        """Write an object of the root."""
        check_component(name)
        self._settle_creation()
        if not self.exists():
            self._missing()
        self.client.put(self.root + name, data)

    def remove(self, name: str) -> None:
        """Delete an object of the root."""
        self.client.delete([self.root + check_component(name)])

    def sync(self) -> None:
        """Do nothing: what a server has taken is durable."""

    def room(self) -> int | None:
        """Nobody knows."""
        return None

    # --- fragments ---

    def files(self, folder: str) -> dict[str, int]:
        """Return sizes by name."""
        return {file: size for file, (size, _) in self._files(folder).items()}

    def _files(self, folder: str) -> dict[str, tuple[int, str]]:
        """Size and key of each file of a folder."""
        check_component(folder)
        prefix = f"{self.data}{folder}/"
        found = {
            file: (entry.size, prefix + file)
            for file, entry in self.client.list_all(prefix).items()
        }
        if FRAGMENT_METADATA not in found:
            for place in self._places():
                inside = self.client.list_all(f"{place}{folder}/")
                if FRAGMENT_METADATA in inside:
                    key = f"{place}{folder}/"
                    found |= {file: (entry.size, key + file) for file, entry in inside.items()}
                    break
            else:
                if not found or FragmentName.parse(folder) or folder in self._look_aside().gone:
                    self._no_folder(folder)
        if found.get(FRAGMENT_METADATA, (1, ""))[0] == 0:
            del found[FRAGMENT_METADATA]  # it says that the folder is there, and no more
        return found

    def _places(self) -> Sequence[str]:
        """Prefixes of where metadata can be, in the order of its way."""
        places = [f"{self.aside}{STAGED}/", *self._places_of_shown(), f"{self.aside}{PAST}/"]
        if self._creation is not None and (build := Creation.of(self._creation).build):
            places += [f"{self.aside}{build}/{ASIDE}/{each}/" for each in (STAGED, PAST)]
        return places

    def open_file(self, folder: str, file: str, mmap: bool) -> File:
        """Read a file of a folder; `mmap` makes no difference."""
        check_component(folder)
        check_component(file)
        if file == FRAGMENT_METADATA and (known := self._metadata_of(folder)):
            return File.memory(known.data)
        files = self._files(folder)
        if file not in files:
            self._no_folder(f"{folder}/{file}")
        return self._bring([(file, *files[file])])[0]

    def open_files(self, folder: str, mmap: bool) -> dict[str, File]:
        """Open every file of a folder, of which the metadata is read; `mmap` makes no difference."""
        check_component(folder)
        if (fresh := self._fresh.pop(folder, None)) is not None:
            return fresh
        for _ in range(_MOVES):
            with suppress(FileNotFoundError):  # its metadata may be on its way
                return self._open_files(folder, self._files(folder))
        return self._open_files(folder, self._files(folder))

    def distrust(self, name: str) -> bool:
        """Yes, and nothing is left of it here."""
        self._metadata.pop(name, None)
        self._fresh.pop(name, None)
        manifest = self._manifest
        if manifest is not None and name in manifest.fragments:
            bare = manifest.fragments[name]._replace(metadata=None)
            self._manifest = manifest._replace(fragments={**manifest.fragments, name: bare})
        return True

    def expect(self, folders: Iterable[str]) -> None:
        """Read the metadata of all of them at once; what is not there any more is noticed when it is opened."""

        def opened(folder: str) -> dict[str, File] | None:
            try:
                return self._open_files(folder, self._listed_files(folder) or self._files(folder))
            except FileNotFoundError:
                return None

        names = [name for name in folders if name not in self._fresh]
        if self._seen is not None:
            self._recall_metadata(names, self._seen)
        found = self.client.at_once(opened, names)
        self._fresh |= {n: files for n, files in zip(names, found, strict=True) if files}

    def _listed_files(self, folder: str) -> dict[str, tuple[int, str]] | None:
        """As `_files` has them, of a fragment that the last listing shows."""
        seen, prefix = self._seen, f"{self.data}{folder}/"
        if self._manifest is not None and folder in self._manifest.fragments:
            sizes = self._manifest.fragments[folder].files
            return {file: (size, prefix + file) for file, size in sizes.items()}
        if self._build or seen is None or seen.within is None or not seen.shows(folder):
            return None
        files = seen.within[folder]
        return {file: (entry.size, prefix + file) for file, entry in files.items()}

    def _open_files(self, folder: str, files: Mapping[str, tuple[int, str]]) -> dict[str, File]:
        """Files by name, size and key: of the data what is read when it is read, small files whole then."""
        found = {}
        for file, (size, key) in files.items():
            if file != FRAGMENT_METADATA:
                found[file] = File.remote(size, self._reader, key)
            elif known := self._metadata_of(folder):
                found[file] = File.memory(known.data)
            else:
                found[file] = self._bring_one((file, size, key))
        data = {key: size for file, (size, key) in files.items() if file != FRAGMENT_METADATA}
        self._reader.know_small({key: size for key, size in data.items() if 0 < size <= WHOLE})
        self._reader.know_large({key: size for key, size in data.items() if size > WHOLE})
        self._opened[folder] = [*data]
        if self.cached is not None and self._identity is not None:
            name = f"{self._identity}\0{folder}"
            self.cached.know(
                {key: (f"{name}\0{file}", size) for file, (size, key) in files.items()}
            )
        return found

    def _bring(self, wanted: Sequence[tuple[str, int, str]]) -> Sequence[File]:
        """Files by name, size and key: metadata and small ones whole, of others what is read when it is read."""
        return self.client.at_once(self._bring_one, wanted)

    def _bring_one(self, wanted: tuple[str, int, str]) -> File:
        file, size, key = wanted
        if file != FRAGMENT_METADATA and size > WHOLE:
            return File.remote(size, self._reader, key)
        found = self.client.get(key)
        data = found.data if found else b""
        if len(data) != size:
            raise OSError(
                errno.EIO, f"{len(data)} of {size} bytes came", f"{self.client.place}/{key}"
            )
        return File.memory(data)

    def _fetch(self, wanted: Sequence[Range]) -> Sequence[bytes]:
        """What the reader asks for: a request each, all at once, of what no cache has."""
        if self.cached is not None:
            return self.cached.fetch(wanted)
        return self.client.at_once(self.ask, wanted)

    def ask(self, part: Range) -> bytes:
        """Bytes of a data file, which is named by its key."""
        key = str(part.file)
        try:
            return self.client.get_range(key, part.offset, part.n)
        except FileNotFoundError as error:
            raise SnapshotGone(
                f"{key} was vacuumed while this handle had it open: reopen()"
            ) from error

    def _distrust(self, part: Range) -> None:
        if self.cached is not None:
            self.cached.distrust(part)

    def draft(self, staged: bool = False) -> ObjectDraft:
        """Begin a folder: nothing is put there before its commit, but the mark of who chooses a time."""
        self._settle_creation()
        if self._identity is None:
            self._identity = self.identity()
            if self._identity is None and not self.exists():
                self._missing()
        return ObjectDraft(self, self._identity, staged)

    def look_for(self, draft: str, identity: str | None) -> Offer | None:
        """See Home."""
        begun = seconds()
        seen = self._look()
        if draft not in seen.drafts or not self._is_same(seen, identity):
            return None
        names = (
            {*seen.folders} if seen.within is None else {n for n in seen.folders if seen.shows(n)}
        )
        tag = _tag(seen.record)
        record = None
        slow = seconds() - begun > LISTED_S
        if seen.aside.numbered or slow or tag != _tag(self._record):
            record = self.record()
        elif (last := self._record) is not None:
            record = RecordFile(_seq_of(last.data), last.data)
        return Offer(names | seen.aside.staged.keys() | seen.aside.past.keys(), record)

    def _is_same(self, seen: Seen, identity: str | None) -> bool:
        """Whether the descriptor is the one that was read, or has the same id."""
        tag = _tag(seen.files.get(DESCRIPTOR))
        if tag is not None and tag == self._identity_tag and identity == self._identity:
            return True
        return self.identity() == identity

    def taken(self, name: str) -> bool:
        """See Home."""
        return (
            not self.client.is_empty(f"{self.data}{name}/")
            or self._get(self.root + name) is not None
        )

    def committed(self, name: str, files: dict[str, File], staged: bool) -> None:
        """See Home."""
        if not staged:
            self._shown.add(name)
            if metadata := files.get(FRAGMENT_METADATA):
                self._metadata[name] = Stored(metadata.read(0, metadata.size), -1, {})
            self._fresh.clear()  # of those that nobody has wanted
            self._fresh[name] = files

    def settled(self, folders: Iterable[str]) -> frozenset[str]:
        """By the server's times, in whole seconds: when its metadata was put there, and when a draft's mark was."""
        marks: dict[str, dict[str, int]] = {}
        prefix = f"{self.aside}{CHOOSING}/"
        for key, entry in self.client.list_all(prefix).items():
            token, ending = split_token(key)
            marks.setdefault(token, {})[ending] = entry.moment
        oldest = None
        for token, moments in marks.items():
            # Its mark and its metadata are put at once: either may come first.
            first, last = min(moments.values()), max(moments.values())
            if self.now() - last > (DRAFT_S + 1) * 1000 or has_ended(owner_of(token)):
                # It must not appear any more: see ObjectDraft.commit.
                self.client.delete([prefix + token])
                self.client.delete([prefix + token + ending for ending in (PENDING, ALIVE)])
            else:
                oldest = first if oldest is None else min(first, oldest)
        if oldest is None:
            return frozenset(folders)
        first = oldest // TELLS_MS
        return frozenset(f for f in folders if self._appeared(f) // TELLS_MS < first)

    def _appeared(self, folder: str) -> int:
        """When a folder was shown, in ms; 0 when it is not any more."""
        if self._seen and self._seen.within and self._seen.shows(folder):
            return self._seen.within[folder][FRAGMENT_METADATA].moment
        known = self._metadata_of(folder)
        if (
            known is None or known.moment < 0
        ):  # who has flushed it does not know when the server did
            self._find_metadata(folder)
            known = self._metadata.get(folder)
        return known.moment if known else 0

    # --- the record ---

    def record(self) -> RecordFile | None:
        """The object of that name; in a store that was copied from a disk, the one of the greatest number there."""
        ahead = self._ahead
        if ahead is not None and ahead.take_record():
            self._record = ahead.record
            found = self._record
        else:
            found = self._read_record()
        if found is not None:
            return RecordFile(_seq_of(found.data), found.data)
        if self._creation is not None and (record := Creation.of(self._creation).record):
            return RecordFile(_seq_of(record), record)
        return self._numbered_record() if self._numbered else None

    def _read_record(self) -> Stored | None:
        """The record as it is now; what was read before comes again without its bytes."""
        last = self._record
        try:
            found = self.client.get(f"{self.aside}{RECORD}", last and last.version, is_sealed)
        except FileNotFoundError:
            self._record = None
            return None
        self._record = found or last
        return self._record

    def _numbered_record(self) -> RecordFile | None:
        numbers = [n for key in self.client.list_all(self.aside) if (n := record_number(key))]
        if not numbers:
            return None
        found = self._get(f"{self.aside}{RECORD}-{max(numbers)}")
        return RecordFile(max(numbers), found.data) if found else None

    def record_seq(self) -> int:
        """The number in it."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.is_over():  # the second listing has the record that was read
            return _seq_of(ahead.record.data) if ahead.record else 0
        record = self.record()
        return record.seq if record else 0

    def replace_record(self, seq: int, data: bytes) -> bool:
        """Replace the object if it is still the one that was read, or put the first if there is none."""
        self._settle_creation()
        key = f"{self.aside}{RECORD}"
        last = self._record
        if last is None or _seq_of(last.data) + 1 != seq:
            now = self.record()
            if now is not None and now.seq >= seq:
                return False
            last = self._record
        if last is None:
            version = self.client.put_new(key, data)
            if version is not None:
                self._check_conditions(key, data)
        else:
            version = self.client.put_if(key, data, last.version)
        if version is None:
            # Its answer may have been lost, and the request repeated.
            again = self._read_record()
            return again is not None and again.data == data
        self._record = Stored(data, 0, version)
        return True

    def _check_conditions(self, key: str, data: bytes) -> None:
        """OSError when the server replaces what it was told to leave alone."""
        if self.client.put_if(
            key, data, {"e_tag": '"0123456789abcdef0123456789abcdef"', "version": "0"}
        ):
            self.client.delete([key])
            raise OSError(errno.ENOTSUP, _UNCONDITIONAL, self.uri)

    # --- the way of a fragment ---

    def staged(self, seconds: float = 0) -> tuple[str, ...]:
        """What has its metadata there."""
        staged = self._look_aside().staged
        if seconds:
            limit = self.now() - seconds * 1000
            return tuple(sorted(name for name, moment in staged.items() if moment < limit))
        return tuple(sorted(staged))

    def past(self) -> tuple[str, ...]:
        """What has its metadata there."""
        aside = self._look_aside()
        moved = Creation.of(self._creation).aside if self._creation else ()
        appearing = {key.split("/")[1] for key in moved if key.startswith(f"{PAST}/")}
        return tuple(sorted(appearing | aside.past.keys() - aside.gone.keys()))

    def show(self, folders: Iterable[str]) -> None:
        """Copy their metadata to the root."""
        names = [check_component(name) for name in folders]
        self.client.at_once(lambda name: self._copied(name, STAGED, ""), names)
        self.client.delete(self._key(STAGED, name) for name in names)

    def set_aside(self, folders: Iterable[str]) -> None:
        """Copy their metadata, then delete it from where it was, one after the other.

        First what others have copied and not deleted: TileDB must not see it when what has superseded it is gone from the root.
        """
        names = [check_component(name) for name in folders]
        if not names:
            return
        aside = self._look_aside()
        names = [name for name in names if name not in aside.gone]
        unsure = sorted((n for n in aside.past if n not in self._left), key=_order)
        self.client.delete(self._key("", name) for name in unsure)

        def copy(name: str) -> None:
            if name in aside.staged and self._copied(name, STAGED, PAST):
                return
            self._copied(name, "", PAST)

        self.client.at_once(copy, names)
        for name in names:
            self.client.delete(self._key(place, name) for place in (STAGED, ""))
            self._forget_shown(name)
        self._left.update(unsure, names)

    def retire(self, folders: Iterable[str]) -> Sequence[str]:
        """Mark them as gone, for longer than anybody may still see some of them, and delete their metadata."""
        names = [check_component(name) for name in folders]
        self.client.at_once(lambda name: self.client.put(f"{self.aside}{GONE}/{name}", b""), names)
        self.client.delete(self._key(place, name) for name in names for place in (STAGED, "", PAST))
        for name in names:
            self._forget_shown(name)
            self._fresh.pop(name, None)
        return names

    def reclaim(self, hidden: Iterable[str]) -> None:
        """Delete objects; the marks of what is gone stay for a while."""
        names = list(hidden)
        if not names:
            return
        aside = list(self.client.list_all(self.aside))

        def keys(name: str) -> Sequence[str]:
            if name.startswith(f"{ASIDE}/"):
                key = self.root + name
                if name.endswith("/"):
                    return [key + each for each in self.client.list_all(key)]
                left = keys(name.rpartition("/")[2]) if name.startswith(f"{ASIDE}/{GONE}/") else []
                return [*left, key]
            # In a store that was copied from a disk the data of what is superseded lies aside, too.
            past = [self.aside + key for key in aside if key.startswith(f"{PAST}/{name}/")]
            prefix = f"{self.data}{name}/"
            return [*past, *(prefix + key for key in self.client.list_all(prefix))]

        for found in self.client.at_once(keys, names):
            self.client.delete(found)

    def abandoned(self, seconds: float) -> Sequence[str]:
        """Data without metadata, drafts, builds, and marks of what is gone, that nobody has written to for so long."""
        seen = self._look()
        aside, folders = seen.aside, seen.folders
        now = self.now()
        limit = now - seconds * 1000
        found = [
            f"{ASIDE}/{GONE}/{n}" for n, moment in aside.gone.items() if moment < now - GONE_MS
        ]
        for token, moments in aside.choosing.items():
            if max(moments.values()) < limit or has_ended(owner_of(token)):
                found += [f"{ASIDE}/{CHOOSING}/{token}{ending}" for ending in moments]
        found += [f"{ASIDE}/{build}/" for build, moment in aside.builds.items() if moment < limit]
        unknown = [
            name
            for name in folders
            if FragmentName.parse(name)
            and not aside.hides(name)
            and name not in aside.built
            and name not in self._shown
        ]
        lost = self.client.at_once(lambda name: self._is_lost(name, limit), unknown)
        return sorted(
            found + [name for name, is_lost in zip(unknown, lost, strict=True) if is_lost]
        )

    def _is_lost(self, folder: str, limit: float) -> bool:
        """Whether a folder has its metadata nowhere, and its data is older than `limit`."""
        data = self.client.list_all(f"{self.data}{folder}/")
        if FRAGMENT_METADATA in data or any(entry.moment >= limit for entry in data.values()):
            return False
        return all(
            self._get(f"{place}{folder}/{FRAGMENT_METADATA}") is None for place in self._places()
        )

    def _key(self, place: str, name: str) -> str:
        """Of the metadata of a fragment in a place."""
        prefix = f"{self.aside}{place}/" if place else self.root
        return f"{prefix}{name}/{FRAGMENT_METADATA}"

    def _copied(self, name: str, place: str, to: str) -> bool:
        """Copy metadata; False where it is not there any more."""
        try:
            self.client.copy(self._key(place, name), self._key(to, name))
        except FileNotFoundError:
            return False
        return True

    # --- time, and who may work ---

    def now(self) -> int:
        """By when the server says that an object was written, which is asked every ten minutes."""
        here = seconds()
        if self._clock is None or here - self._clock[0] > CLOCK_S:
            key = f"{self.aside}{CLOCK}"
            try:
                self.client.put(key, b"")
                self._clock = here, self.client.head(key).moment
            except (
                PermissionError,
                ReadOnlyError,
            ):  # a reader only wants to know about how late it is
                self._clock = here, milliseconds()
        began, moment = self._clock
        return int(moment + (here - began) * 1000)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """An object that one puts there, and renews for as long as he works."""
        if not self.exists():
            self._missing()
        lease = Lease(self.client, f"{self.aside}{LEASE}", self.now)
        held = lease.taken()
        try:
            yield held
        finally:
            if held:
                lease.release()

    # --- creation ---

    def create(self, files: Mapping[str, bytes], replace: bool) -> bool:
        """Make the root. Without the lock file: nobody locks there, and TileDB would ask what it is at every open."""
        kept = {check_component(name): data for name, data in files.items() if name != LOCK}
        return self.appear(Creation(kept, replaces=replace))

    def appear(self, creation: Creation) -> bool:
        """Let a store be there, all at once; False when something is."""
        key = f"{self.aside}{CREATING}"
        for _ in range(_TRIES):
            empty = self.is_empty()
            if not empty and not creation.replaces:
                return False
            if empty and creation.replaces:
                creation = replace(creation, replaces=False)
            data = creation.to_bytes()
            if self.client.put_new(key, data) is None and not self.has(key, data):
                self.help(key)
                continue
            ended = self.client.put_new(key, data) is not None
            if ended:
                self.client.delete([key])
            if not creation.replaces and not self._is_alone():
                if not self._is_begun(creation):  # it came too late
                    self.client.delete([key])
                    return False
            elif ended and not self._is_begun(creation):
                if creation.replaces:
                    continue
                raise OSError(errno.ENOTSUP, _UNCONDITIONAL, self.uri)
            settle(self.client, self.root, data)
            self.forget()
            return True
        raise StoreBusyError(f"others create stores at {self.uri} all the time")

    def has(self, key: str, data: bytes) -> bool:
        """Whether an object is there and is this."""
        found = self._get(key)
        return found is not None and found.data == data

    def _is_begun(self, creation: Creation) -> bool:
        """Whether somebody has begun to put its files in their places, or ended."""
        first = creation.in_order()[0]
        return self.has(self.root + first, creation.files[first])

    def _is_alone(self) -> bool:
        """Whether no other store is where one is about to appear."""
        _, files = self.client.list_folder(self.root)
        return not files

    def help(self, key: str) -> None:
        """End the creation that is under way."""
        found = self._get(key)
        if found is not None:
            self._settle(found.data)

    def _settle_creation(self) -> None:
        if self._creation is not None:
            self._settle(self._creation)
            self._creation = None

    def _settle(self, data: bytes) -> None:
        if not Creation.of(data).locked:
            settle(self.client, self.root, data)
            return
        with self.lock() as held:
            if not held:
                raise StoreBusyError(f"the store at {self.uri} is being moved or removed")
            settle(self.client, self.root, data)

    def forget(self) -> None:
        """Of a store that was replaced."""
        self._shown.clear()
        self._metadata.clear()
        self._fresh.clear()
        self._left.clear()
        self._creation = None
        self._identity = self._identity_tag = None

    def build(self, uri: str = "") -> ObjectBuild:
        """Begin a store whose data goes to this place, and whose metadata lies aside."""
        return ObjectBuild(self, split_build(uri)[1] or f"{BUILD}{uuid.uuid4().hex}")

    def in_build(self, build: str) -> ObjectStorage:
        """The store that is being made."""
        return ObjectStorage(self.client, self._prefix, build)

    # --- what all of them need ---

    def _get(self, key: str) -> Stored | None:
        try:
            return self.client.get(key, sound=_soundness_of(key))
        except FileNotFoundError as error:
            if "there is no bucket" in str(error):
                raise
            return None

    def _get_listed(self, key: str, entry: Entry | None) -> Stored | None:
        """An object that a listing has, from the cache if that has it."""
        if entry is None:
            return None
        if self.cached is None:
            return self._get(key)
        found = self.cached.cache.get_object(MANIFEST, entry)
        if found is None and (found := self._get(key)) is not None:
            self.cached.cache.put_object(MANIFEST, found)
        return found

    def _get_data(self, key: str) -> bytes | None:
        found = self._get(key)
        return found.data if found else None

    def _missing(self) -> NoReturn:
        raise StoreNotFoundError(f"there is no store at {self.uri!r}") from None

    def _no_folder(self, name: str) -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.uri}/{name}")


class _Ahead:
    """What was asked for ahead: each part once, and for a moment."""

    def __init__(
        self, moment: float, descriptor: Stored, record: Stored | None, seen: Seen
    ) -> None:
        self._moment = moment
        self._descriptor: Stored | None = descriptor
        self.record = record
        self._recorded = True
        self._seen: Seen | None = seen

    def take_descriptor(self) -> Stored | None:
        """The descriptor."""
        found, self._descriptor = self._descriptor, None
        return found if self._is_new() else None

    def take_record(self) -> bool:
        """Whether `record` is to be taken."""
        found, self._recorded = self._recorded, False
        return found and self._is_new()

    def take_seen(self) -> Seen | None:
        """The second listing."""
        found, self._seen = self._seen, None
        return found if self._is_new() else None

    def is_over(self) -> bool:
        """Whether all of it was taken."""
        left = self._descriptor or self._seen or self._recorded
        return not left and self._is_new()

    def _is_new(self) -> bool:
        return seconds() - self._moment < AHEAD_S


class ObjectBuild:
    """A Build of an ObjectStorage."""

    def __init__(self, place: ObjectStorage, build: str) -> None:
        self._place = place
        self._build = build
        self._ours = True

    @property
    def uri(self) -> str:
        """Where its metadata lies."""
        return self._place.in_build(self._build).uri

    def commit(self, replace: bool) -> bool:
        """Let it appear."""
        built = self._place.in_build(self._build)
        listing = built.list()
        record = built.record()
        files = {name: built.read(name) for name in listing.files}
        creation = Creation(
            files, listing.folders, self._build, record.data if record else None, replace
        )
        self._ours = False  # after an error it may be the store
        done = self._place.appear(creation)
        self._ours = not done
        return done

    def abandon(self) -> None:
        """Delete what is left of it."""
        if not self._ours:
            return
        place = self._place
        with suppress(OSError):
            aside = Aside.of({f"{self._build}/{key}": entry for key, entry in self._left().items()})
            place.reclaim([f"{ASIDE}/{self._build}/", *aside.built])

    def _left(self) -> dict[str, Any]:
        return self._place.client.list_all(self._place.in_build(self._build).root)


_UNCONDITIONAL: Final = (
    "the server ignores the conditions of requests (If-None-Match, If-Match): of what two programs write there at once, "
    "one would be lost"
)


def open_object_storage(
    uri: str, options: Mapping[str, object] | None, cached: bool = False
) -> ObjectStorage:
    """The storage of `scheme://bucket/prefix`, or `http://host/path`; `cached`: read through the cache that options ask for."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    web = scheme.lower() in WEB
    if web:
        prefix = web_path(uri, prefix)
    if not bucket or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise InvalidValueError(f"{uri!r}: a store's URI there is {scheme}://bucket/prefix")
    scheme = {"gcs": "gs"}.get(scheme.lower(), scheme.lower())
    client = client_of(f"{scheme}://{bucket}", options)
    if web:
        from tilekv.storage.webclient import WebClient

        client = WebClient(client, f"{prefix}/" if prefix else "")
    storage = ObjectStorage(client, *split_build(prefix))
    if cached and options and not options.keys().isdisjoint(CACHE):
        from tilekv.storage.blockcache import CachedFiles, cache_of

        storage.cached = CachedFiles(cache_of(options), storage.ask, storage.client.at_once)
    return storage


def web_path(uri: str, path: str) -> str:
    """What a path of a URL stands for."""
    from urllib.parse import unquote

    host = uri.partition("://")[2].partition("/")[0]
    if re.search("[?#]|%(?![0-9A-Fa-f]{2})", path) or "@" in host:
        raise InvalidValueError(
            f"{uri.rpartition('@')[2]!r}: a store's URL is https://host/path, percent-encoded; credentials go into the storage "
            "option default_headers"
        )
    return unquote(path, errors="surrogateescape")


def _soundness_of(key: str) -> Callable[[bytes], bool] | None:
    """What tells whether an object has come as it was written, by its own checksum, if it has one of its own."""
    name = key.rpartition("/")[2]
    return is_sealed if name == DESCRIPTOR or name.startswith(RECORD) else None


def _tag(found: Entry | Stored | None) -> str | None:
    return found.version["e_tag"] if found else None


def _order(name: str) -> tuple[int, int, str]:
    parsed = FragmentName.parse(name)
    return parsed.order if parsed else (0, 0, name)


def _seq_of(record: bytes) -> int:
    """The number in a record; 1 in what is none, and will be refused."""
    match = _SEQ.search(record)
    return int(match[1]) if match else 1
