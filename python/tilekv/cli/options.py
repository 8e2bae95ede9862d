"""What a command line says of object storage."""

from __future__ import annotations

import argparse

Options = dict[str, str] | None


def option_of(text: str) -> tuple[str, str]:
    """The name and value of one option."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE such as region=eu-central-1")
    return name, value


def options_of(args: argparse.Namespace) -> Options:
    """All that were given; None when none were, and the environment says all."""
    return dict(args.storage_option) if args.storage_option else None
