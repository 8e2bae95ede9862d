"""serve: the options of a server from the command line, a file and the environment."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import Final

from tilekv.errors import InvalidValueError
from tilekv.serve.options import FSYNCS, LEVELS, Options, lines_of
from tilekv.serve.server import LEVELS as LOG_LEVELS
from tilekv.serve.server import Server

PASSWORD: Final = "TILEKV_PASSWORD"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of serve."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="options of a file: a name without -- and a value a line")
    add("--port", metavar="N", help="6379 unless given; 0: no TCP")
    add(
        "--bind",
        metavar="ADDRESSES",
        help="127.0.0.1 and ::1 unless given; others take a password",
    )
    add("--unixsocket", metavar="PATH", help="a socket too, for its owner alone")
    add(
        "--password-file",
        metavar="FILE",
        help=f"what clients have to give; or {PASSWORD} in the environment",
    )
    add("--databases", metavar="N", help="that SELECT knows: STORE, STORE.db1, ... (16)")
    add(
        "--appendfsync",
        choices=FSYNCS,
        help="flush within a second (everysec, the default), before writes are answered (always), or by size and time (no)",
    )
    add("--readonly", action="store_true", help="serve what others write, a second behind")
    add(
        "--history",
        metavar="SECONDS",
        help="for which merges leave what they have superseded (60); all, or store for what the store says",
    )
    add("--max-bytes", metavar="SIZE", help="with more on disk, what expires next is deleted")
    add("--max-value", metavar="SIZE", help="of one value (512mb)")
    add("--max-clients", metavar="N", help="1000 unless given")
    add("--query-memory", metavar="SIZE", help="of all that has come and is not answered (1gb)")
    add("--reply-memory", metavar="SIZE", help="of all replies that are not read (128mb)")
    add("--buffer-bytes", metavar="SIZE", help="of writes before they are flushed at once (64mb)")
    add("--cache-bytes", metavar="SIZE", help="of decoded chunks that are kept (256mb)")
    add("--timeout", metavar="SECONDS", help="after which an idle client is closed (0: never)")
    add("--slowlog-slower-than", metavar="MICROSECONDS", help="10000 unless given; -1: none")
    add("--slowlog-max-len", metavar="N", help="128 unless given")
    add("--loglevel", choices=LEVELS, help="notice unless given")
    add("--logfile", metavar="FILE", help="stderr unless given")


def serve_store(args: argparse.Namespace) -> int:
    """Serve until a signal says to end."""
    options, logfile = options_of(args, os.environ.get(PASSWORD))
    handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("tilekv")
    logger.addHandler(handler)
    logger.setLevel(LOG_LEVELS[options.loglevel])
    try:
        Server(options).run()
    finally:
        logger.removeHandler(handler)
        handler.close()
    return 0


def options_of(args: argparse.Namespace, password: str | None) -> tuple[Options, str]:
    """The options, and the file of the log: what the command line says wins over the file."""
    options = Options(store=args.store, password=password or None)
    given: dict[str, str] = {}
    if args.config:
        with open(args.config, encoding="utf-8") as file:
            given.update(lines_of(file.read()))
    for name, value in vars(args).items():
        if name not in ("config", "store", "run") and value not in (None, False):
            given[name.replace("_", "-")] = "yes" if value is True else value
    logfile = given.pop("logfile", "")
    secret = given.pop("password-file", "")
    if secret:
        with open(secret, encoding="utf-8") as file:
            options.password = file.read().removesuffix("\n")
        if not options.password:
            raise InvalidValueError(f"{secret} has no password in it")
    for name, text in given.items():
        options.set(name, text)
    options.check()
    return options, logfile
