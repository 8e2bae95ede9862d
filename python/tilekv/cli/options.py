"""What a command line says of how stores are opened."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilekv.config import Config
from tilekv.errors import TileKVError
from tilekv.store import Store
from tilekv.store import open as open_store

Options = dict[str, str] | None


@dataclass(frozen=True)
class Opening:
    """How a command opens the store that it names.

    Attributes
    ----------
    storage_options : dict or None
        Of object storage.
    config : dict or None
        As of `tilekv.open`.
    timestamp : datetime, int or None
        The moment that a store which is read shows.
    ignore_newer : bool
        Leave out what TileDB 2 has added to a store which is read.
    """

    storage_options: Options = None
    config: Mapping[str, object] | None = None
    timestamp: dt.datetime | int | None = None
    ignore_newer: bool = False

    def to_read(self, uri: str) -> Store:
        """The store of a place, open for reading."""
        return open_store(
            uri,
            timestamp=self.timestamp,
            config=self.config,
            ignore_newer=self.ignore_newer,
            storage_options=self.storage_options,
        )

    def to_write(self, uri: str, **options: Any) -> Store:
        """The same, open for writing, and created when it is missing; `options` of `tilekv.open`."""
        return open_store(
            uri, "a", config=self.config, storage_options=self.storage_options, **options
        )


def option_of(text: str) -> tuple[str, str]:
    """The name and value of one option."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE such as region=eu-central-1")
    return name, value


def config_of(text: str) -> tuple[str, str]:
    """The name and value of one option of a handle, which there is."""
    name, value = option_of(text)
    try:
        Config.of({name: value})
    except TileKVError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, value


def moment_of(text: str) -> dt.datetime | int:
    """A moment: ms since 1970, or a date and time, of this place unless it has a zone."""
    if text.isdecimal():
        return int(text)
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a moment such as 2024-05-01T12:00:00+02:00, nor ms since 1970"
        ) from None


def options_of(args: argparse.Namespace) -> Options:
    """The storage options that were given; None when none were, and the environment says all."""
    return dict(args.storage_option) if args.storage_option else None


def opening_of(args: argparse.Namespace) -> Opening:
    """All that was given of how the store is opened."""
    return Opening(
        options_of(args),
        dict(args.config) if args.config else None,
        getattr(args, "timestamp", None),
        getattr(args, "ignore_newer", False),
    )
