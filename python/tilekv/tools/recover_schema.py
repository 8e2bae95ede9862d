"""What is left of a damaged store: its schema, from whichever of the files that tell it are whole, and its fragments one by one.

Nothing here is guessed. The schema stands in two files, and the descriptor holds its checksum: one whole copy and the checksum
prove it, and so do two equal copies. What the descriptor alone holds is the digest, which every cell proves, and the shapes of
cells, which cannot be had back: a cell of shape (3, 4) is then one of 12 values.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final

from tilekv.descriptor import AttrEntry, Descriptor
from tilekv.engine import layout_of
from tilekv.errors import CorruptionError, InvalidValueError, WrongTypeError
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.kvcore.check.recovery import proven_keys
from tilekv.kvcore.read.fragment import Fragment
from tilekv.names import (
    ARRAY_SCHEMA,
    DESCRIPTOR,
    FRAGMENT_METADATA,
    KV_SCHEMA,
    FragmentName,
    is_temporary,
)
from tilekv.opener import Opener
from tilekv.schema import DIGESTS, EXPIRES, VALID, VAR, Attr, Schema, shown_name, type_name_of
from tilekv.schemafile import read_schema
from tilekv.storage import Listing, Storage
from tilekv.tools.problem import DAMAGE, Problem

_GUESSES: Final = 256  # schemas of default filters that are tried against the checksum


@dataclass(frozen=True)
class RecoveredSchema:
    """What a store can still be read with.

    Attributes
    ----------
    schema : Schema
        The store's.
    problems : tuple of Problem
        What is wrong with the files that tell it.
    rebuilt : tuple of str
        What was had from elsewhere than its own place.
    numbers : bool
        Whether equal numbers are one key; taken for granted where no descriptor tells.
    """

    schema: Schema
    problems: tuple[Problem, ...]
    rebuilt: tuple[str, ...]
    numbers: bool = True


def recover_schema(storage: Storage, listing: Listing) -> RecoveredSchema:
    """Put together the schema of a store that was listed.

    Raises
    ------
    CorruptionError
        When what is left does not prove it.
    FormatError
        When a newer tilekv, or something else, wrote the store.
    """
    problems: list[Problem] = []
    descriptor: Descriptor | None = None
    try:
        data = _read(storage, DESCRIPTOR)
        descriptor = Descriptor.from_bytes(data)
    except CorruptionError as error:
        problems.append(Problem._of(error))
    copies: dict[str, bytes] = {}
    for file in (KV_SCHEMA, ARRAY_SCHEMA):
        try:
            copies[file] = _read(storage, file)
            if descriptor:
                descriptor.check_schema(copies[file], file)
        except CorruptionError as error:
            copies.pop(file, None)
            problems.append(Problem._of(error))
    if descriptor is None:
        return _without_descriptor(storage, listing, copies, problems)
    for file, data in copies.items():
        rebuilt = () if not problems else (f"the schema, from {file}",)
        whole = Schema._from_file(data, descriptor, file)
        return RecoveredSchema(whole, tuple(problems), rebuilt, descriptor.numbers)
    schema = _default_schema(descriptor)
    if schema is None:
        raise CorruptionError(
            KV_SCHEMA,
            0,
            f"neither it nor {ARRAY_SCHEMA} is whole: without a schema no fragment can be read",
        )
    rebuilt = (f"the schema, from {DESCRIPTOR} and its checksum",)
    return RecoveredSchema(schema, tuple(problems), rebuilt, descriptor.numbers)


def _read(storage: Storage, file: str) -> bytes:
    """A file of the root; CorruptionError when it is missing."""
    try:
        return storage.read(file)
    except FileNotFoundError:
        raise CorruptionError(file, None, "it is missing") from None


def _default_schema(descriptor: Descriptor) -> Schema | None:
    """The schema that the descriptor has the checksum of, if it has default filters: proven, since the checksum fits."""
    kinds = {"bytes": bytes, "str": str}
    choices = []
    for entry in descriptor.attrs:
        # Whether numbers without a shape are one or an array of any length, only the schema file says.
        several = (False, True) if entry.shape is None and entry.dtype not in kinds else (False,)
        choices.append([(entry, var) for var in several])
    for chosen in itertools.islice(itertools.product(*choices), _GUESSES):
        try:
            attrs = [
                Attr(
                    one.name,
                    kinds.get(one.dtype, one.dtype),
                    one.shape,
                    var,
                    nullable=one.nullable,
                )
                for one, var in chosen
            ]
            schema = Schema(attrs, descriptor.digest, expires=descriptor.expires)
        except (InvalidValueError, WrongTypeError):
            return None
        if crc32c(schema.to_file()) == descriptor.schema_crc32c:
            return schema._of_frame(descriptor.frame)
    return None


def _without_descriptor(
    storage: Storage, listing: Listing, copies: dict[str, bytes], problems: list[Problem]
) -> RecoveredSchema:
    """The schema of two equal copies, with the digest that the cells prove."""
    if len(copies) < 2 or len(set(copies.values())) > 1:
        raise CorruptionError(
            DESCRIPTOR,
            0,
            f"it is damaged, and {KV_SCHEMA} and {ARRAY_SCHEMA} are not equal: nothing proves the schema",
        )
    data = copies[KV_SCHEMA]
    stored = read_schema(data, KV_SCHEMA)
    entries = []
    expires = stored.fields[-2].name == EXPIRES
    fields = stored.fields[1 : -2 if expires else -1]
    nullable = {field.name for field in fields if field.name.startswith(VALID)}
    for field in fields:
        if field.name in nullable:
            continue
        shape = None if field.cell_val_num in (1, VAR) else (field.cell_val_num,)
        name, dtype = shown_name(field.name), type_name_of(field.datatype)
        entries.append(AttrEntry(name, dtype, shape, VALID + field.name in nullable))
    descriptor = Descriptor("0" * 32, "blake2b", "", tuple(entries), crc32c(data), expires=expires)
    schemas = [
        Schema._from_file(data, replace(descriptor, digest=digest), KV_SCHEMA) for digest in DIGESTS
    ]
    schema = next((schema for schema in schemas if _proves(storage, listing, schema)), None)
    if schema is None:
        raise CorruptionError(
            DESCRIPTOR, 0, "it is damaged, and no cell is left to prove the digest of the keys"
        )
    rebuilt = [f"the digest {schema.digest}, from the cells"]
    wide = [attr.name for attr in schema.attrs if attr.shape]
    if wide:
        rebuilt.append(f"cells of {', '.join(wide)} in one dimension: their shape is lost")
    return RecoveredSchema(schema, tuple(problems), tuple(rebuilt))


def _proves(storage: Storage, listing: Listing, schema: Schema) -> bool:
    """Whether a cell has the coordinates that the schema's digest gives its key."""
    opener = Opener(storage, layout_of(schema, True), 0, False, 0)
    for name in listing.folders:
        fragment = open_partial(opener, name) if FragmentName.parse(name) else None
        if fragment is None:
            continue
        for tile in range(tiles_of(fragment, schema.capacity)):
            present, deleted, _ = proven_keys(fragment, tile)
            if present or deleted:
                return True
    return False


def open_partial(
    opener: Opener, name: str, problems: list[Problem] | None = None
) -> Fragment | None:
    """A fragment as far as its files go; None, and a problem, when its metadata does not tell what they hold."""
    found = [] if problems is None else problems
    try:
        missing = opener.missing(name)
        found += [Problem(name, file, None, "the file is missing") for file in missing]
        return None if FRAGMENT_METADATA in missing else opener.fragment(name, partial=True)
    except DAMAGE as error:
        found.append(Problem._of(error, name))
    return None


def half_removed(opener: Opener) -> frozenset[str]:
    """Replaced fragments that a vacuum was removing file by file, as it does where folders cannot be renamed."""
    found = set()
    try:
        for name in opener.superseded():
            files = opener.storage.files(name)
            if FRAGMENT_METADATA not in files and (not files or any(map(is_temporary, files))):
                found.add(name)
    except DAMAGE:
        return frozenset()  # the record tells nothing, or a vacuum is at work
    return frozenset(found)


def tiles_of(fragment: Fragment, capacity: int) -> int:
    """How many tiles a fragment has."""
    return -(-fragment.cells // capacity)
