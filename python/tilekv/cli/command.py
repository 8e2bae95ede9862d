"""The arguments of python -m tilekv, and what its exit codes mean.

0 done, 1 an error or damage (one line on stderr), or no key that grep finds, 2 wrong usage, 130 interrupted,
141 nobody reads the output any more.
"""
# PYTHON_ARGCOMPLETE_OK: argcomplete's completion of all commands looks for this word.

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import TextIOWrapper
from typing import Any, Final

from tilekv.cli.entries import KEY_TYPES, get_value, key_of, put_value, remove_keys
from tilekv.cli.keys import Form, copy_keys, list_keys, search_keys, show_sizes
from tilekv.cli.moving import import_database, is_tree
from tilekv.cli.options import config_of, moment_of, opening_of, option_of, options_of
from tilekv.cli.redis import export_redis, import_redis, is_redis
from tilekv.cli.report import salvage_store, show_info, show_manifest, show_problems
from tilekv.cli.serve import add_options, serve_store
from tilekv.cli.tables import load_table, unload_table
from tilekv.cli.text import error_text, seconds_of
from tilekv.cli.tree import export_tree, import_tree
from tilekv.cli.upkeep import (
    backup_store,
    consolidate_store,
    convert_store,
    keep_store,
    vacuum_store,
)
from tilekv.config import Config
from tilekv.errors import InvalidValueError, TileKVError
from tilekv.moving.importing import KINDS
from tilekv.progress import reporter
from tilekv.version import VERSION

PROGRAM: Final = "python -m tilekv"
SCRIPT: Final = "tilekv"  # the same, as it is installed
INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as a shell reports it
NO_READER: Final = 141  # of SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process unless given.

    Returns
    -------
    int
        The exit code.
    """
    parser = build_parser()
    _complete(parser)
    for word in argv or ():
        if not _can_be_given(word):
            parser.error(f"no program can be given {word!a}: it has a NUL or a lone surrogate")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, TextIOWrapper):
        # Keys are UTF-8, or were file names: they leave byte for byte, whatever the locale.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in stdout's buffer must not fail a second time when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except KeyboardInterrupt:
        return INTERRUPTED
    except MemoryError:
        print("tilekv: out of memory", file=sys.stderr)
        return 1
    except (TileKVError, OSError) as error:
        print(f"tilekv: {error_text(error)}", file=sys.stderr)
        return 1
    return code


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what can come next, and end, where argcomplete is installed; nobody else pays for it."""
    if "_ARGCOMPLETE" in os.environ:
        with suppress(ModuleNotFoundError):
            import argcomplete

            argcomplete.autocomplete(parser)


def _can_be_given(word: str) -> bool:
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def build_parser() -> argparse.ArgumentParser:
    """Every command with its arguments and its help."""
    program = SCRIPT if os.path.basename(sys.argv[0]) == SCRIPT else PROGRAM
    parser = argparse.ArgumentParser(
        prog=program,
        description="Files and values into a tilekv store, out of it, and whether it is sound.",
        epilog=f"example: {program} import photos photos.kv; {program} COMMAND --help has one for each.",
    )
    parser.add_argument("--version", action="version", version=f"tilekv {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    one = _command(
        commands, "import", "store every file below a folder, or what another program has stored"
    )
    one.description = """Store every regular file below SOURCE: the key is its path from SOURCE on, the value what is in it.
        What is stored already, with the same content, is not stored again. Symbolic links are not followed. A file that
        cannot be read is reported and does not keep the others out. SOURCE may also be a database of LMDB, LevelDB, dbm or
        shelve, a file of SQLite, a cache of diskcache, a tar archive, or several by a quoted pattern such as
        "train-{000..127}.tar" or "*.tar", or another store; and redis://host:port/db or unix://path:
        every string of that database is stored under its key, until the moment at which it expires. A password is in the URL, or
        in the environment as TILEKV_PASSWORD. An import that was interrupted is given again, and goes on."""
    one.epilog = (
        f"example: {program} import photos photos.kv; {program} import old.db new.kv --table photos --key name; "
        f"{program} import redis://localhost/0 cache.kv"
    )
    one.add_argument("dir", metavar="SOURCE")
    one.add_argument("store", metavar="STORE", help="created if it is missing")
    one.add_argument(
        "--batch-bytes",
        metavar="SIZE",
        type=_size,
        help='write a fragment after so many bytes, such as "64 MiB" (default: 256 MiB)',
    )
    one.add_argument(
        "--expires",
        action="store_true",
        help="a store that is created can keep moments of expiry, as put --expire gives them",
    )
    one.add_argument(
        "--from",
        dest="kind",
        choices=KINDS,
        help="what SOURCE is; its files tell, but for shelve, which looks like dbm, and webdataset, like tar",
    )
    one.add_argument(
        "--table", metavar="NAME", help="of SQLite, if it has several; of LMDB, a named database"
    )
    one.add_argument("--key", metavar="COLUMN", help="of SQLite, unless there is a primary key")
    one.add_argument("--text-keys", action="store_true", help="keys of bytes become text")
    one.add_argument(
        "--pickle",
        action="store_true",
        help="load values that are pickles: whatever is in them is run. Only from where you trust",
    )
    _add_progress(one)
    _add_config(one)
    one.set_defaults(run=_import)

    one = _command(commands, "export", "write every value to a file")
    one.description = """Write every value to the file below DIR that its key names. Keys that lead out of DIR, and all
        that are not str, are refused before anything is written. DIR may also be the name of a tar archive, .tar, .tar.gz, .tgz,
        .tar.bz2 or .tar.xz, or redis://host:port/db: every entry is set there,
        with the moment at which it expires."""
    one.epilog = f"example: {program} export photos.kv copy; {program} export photos.kv copy.tar; {program} export cache.kv redis://localhost/0"
    one.add_argument("store", metavar="STORE")
    one.add_argument(
        "dir", metavar="DIR", help="created if it is missing; must be empty; or an archive"
    )
    _add_attr(one)
    one.add_argument(
        "--force", action="store_true", help="DIR may have files; replace those that are in the way"
    )
    _add_reading(one)
    one.set_defaults(
        run=lambda args: (
            export_redis(args.store, args.dir, args.attr, sys.stderr.isatty(), opening_of(args))
            if is_redis(args.dir)
            else export_tree(args.store, args.dir, args.attr, args.force, opening_of(args))
        )
    )

    one = _command(commands, "load", "make a store of a Parquet or CSV file")
    one.description = """Make a store of a .parquet or .csv file: the keys are the values of one column, and every other is an
        attribute. It is read in batches, whatever its size. Needs pyarrow."""
    one.epilog = f"example: {program} load packages.parquet packages.kv --key name"
    one.add_argument("file", metavar="FILE")
    one.add_argument("store", metavar="STORE", help="must not be there")
    one.add_argument(
        "--key", metavar="COLUMN", required=True, help="no two rows may have one value of it"
    )
    _add_progress(one)
    _add_config(one)
    one.set_defaults(
        run=lambda args: load_table(args.file, args.store, args.key, _shown(args), opening_of(args))
    )

    one = _command(commands, "unload", "write all rows to a Parquet or CSV file")
    one.description = """Write all rows to a .parquet or .csv file, with the columns and types of the file or frame that the store
        was made of. Needs pyarrow."""
    one.epilog = f"example: {program} unload packages.kv packages.parquet"
    one.add_argument("store", metavar="STORE")
    one.add_argument("file", metavar="FILE", help="replaced if it is there")
    _add_progress(one)
    _add_reading(one)
    one.set_defaults(
        run=lambda args: unload_table(args.store, args.file, _shown(args), opening_of(args))
    )

    one = _command(commands, "ls", "list the keys")
    one.description = """List the keys, a line each, in the order of the store, which is that of their digests. Keys that
        are not str, or would steer a terminal, are shown as Python writes them."""
    one.epilog = f"example: {program} ls -l --sorted --prefix 2024/ --glob '*.jpg' photos.kv"
    one.add_argument("store", metavar="STORE")
    _add_form(one)
    one.add_argument("--prefix", metavar="TEXT", help="only str keys that begin with TEXT")
    one.add_argument("--glob", metavar="PATTERN", help="only str keys that match; * matches / too")
    one.add_argument("--sorted", action="store_true", help="only str keys, in their order")
    _add_reading(one)
    one.set_defaults(
        run=lambda args: list_keys(
            args.store, args.prefix, args.glob, args.sorted, _form(args), opening_of(args)
        )
    )

    one = _command(commands, "grep", "list the keys that match a regular expression")
    one.description = """List the str keys in which PATTERN, a regular expression of Python, is found. The exit code is 1 if there
        is none."""
    one.epilog = f"example: {program} grep -c '^2024/.*[.]jpg$' photos.kv"
    one.add_argument("pattern", metavar="PATTERN")
    one.add_argument("store", metavar="STORE")
    one.add_argument("-i", dest="ignore_case", action="store_true", help="case does not count")
    one.add_argument("-v", dest="invert", action="store_true", help="those in which it is not")
    one.add_argument("-c", dest="count", action="store_true", help="only how many they are")
    _add_form(one)
    _add_reading(one)
    one.set_defaults(
        run=lambda args: search_keys(
            args.pattern,
            args.store,
            args.ignore_case,
            args.invert,
            args.count,
            _form(args),
            opening_of(args),
        )
    )

    one = _command(commands, "du", "tell how large values are, by folder")
    one.description = """Tell how many entries, and bytes of values, before compression, are below each folder that slashes in str
        keys make, and in all. info says what the store has on disk."""
    one.epilog = f"example: {program} du --depth 2 photos.kv"
    one.add_argument("store", metavar="STORE")
    one.add_argument("--prefix", metavar="TEXT", help="only str keys that begin with TEXT")
    one.add_argument(
        "--depth",
        metavar="N",
        type=_depth,
        default=1,
        help="how many folders deep a line goes (default: 1; 0: only the sum)",
    )
    _add_json(one)
    _add_reading(one)
    one.set_defaults(
        run=lambda args: show_sizes(
            args.store, args.prefix, args.depth, args.json, opening_of(args)
        )
    )

    one = _command(commands, "cp", "copy entries of one store into another")
    one.description = """Put entries of SOURCE into STORE: those of the KEYs, those that match, or all. What STORE has already,
        with the same value, is not written again; what else it has stays. backup copies a whole store as it is."""
    one.epilog = f"example: {program} cp photos.kv some.kv --prefix 2024/"
    one.add_argument("source", metavar="SOURCE")
    one.add_argument(
        "store", metavar="STORE", help="created, with the attributes of SOURCE, if it is missing"
    )
    one.add_argument("keys", metavar="KEY", nargs="*")
    one.add_argument("--prefix", metavar="TEXT", help="only str keys that begin with TEXT")
    one.add_argument("--glob", metavar="PATTERN", help="only str keys that match; * matches / too")
    one.add_argument(
        "--expires", action="store_true", help="a store that is created keeps moments of expiry"
    )
    _add_type(one)
    _add_progress(one)
    _add_reading(one)
    one.set_defaults(run=_copy)

    one = _command(commands, "get", "print a value, or write it to a file")
    one.description = """Print a value: bytes as they are, text in UTF-8, a number on a line."""
    one.epilog = f"example: {program} get photos.kv 2024/cat.jpg -o cat.jpg; {program} get slides.kv 7.svs --range 0:16384"
    one.add_argument("store", metavar="STORE")
    one.add_argument("key", metavar="KEY")
    one.add_argument("-o", dest="output", metavar="FILE", help="write to FILE, not to stdout")
    one.add_argument(
        "--range",
        metavar="START:STOP",
        type=_part,
        help="only these bytes, as Python slices them: 100:200, :16, -16: (write --range=-16:)",
    )
    _add_attr(one)
    _add_type(one)
    _add_reading(one)
    one.set_defaults(
        run=lambda args: get_value(
            args.store,
            key_of(args.key, args.type),
            args.attr,
            args.output,
            args.range,
            opening_of(args),
        )
    )

    one = _command(commands, "put", "set a key")
    one.description = """Set KEY to what is in FILE, or to the TEXT of --value: bytes as they are, text in UTF-8, a
        number as it is written. Bytes go into the store as they come, however many, unless they are to expire."""
    one.epilog = f"example: {program} put photos.kv 2024/cat.jpg cat.jpg; {program} put sessions.kv abc --value x --expire 30m"
    one.add_argument("store", metavar="STORE", help="of one attribute; created if it is missing")
    one.add_argument("key", metavar="KEY")
    source = one.add_mutually_exclusive_group()
    source.add_argument("file", metavar="FILE", nargs="?", default="-", help="- or nothing: stdin")
    source.add_argument("--value", metavar="TEXT")
    one.add_argument(
        "--expire",
        metavar="TIME",
        type=_span,
        help="""after which KEY is as if deleted: seconds, or 10m, 2h, 3d; or never. Of a store that keeps moments of expiry,
            as one does that this creates""",
    )
    _add_type(one)
    _add_config(one)
    one.set_defaults(
        run=lambda args: put_value(
            args.store,
            key_of(args.key, args.type),
            args.file,
            args.value,
            args.expire,
            opening_of(args),
        )
    )

    one = _command(commands, "rm", "delete keys")
    one.description = """Delete keys: all, or none if one is not there."""
    one.epilog = f"example: {program} rm photos.kv 2024/cat.jpg 2024/dog.jpg"
    one.add_argument("store", metavar="STORE")
    one.add_argument("keys", metavar="KEY", nargs="+")
    _add_type(one)
    _add_config(one)
    one.set_defaults(
        run=lambda args: remove_keys(
            args.store, [key_of(key, args.type) for key in args.keys], opening_of(args)
        )
    )

    one = _command(commands, "info", "show schema, counts, sizes and fragments")
    one.epilog = f"example: {program} info --json photos.kv"
    one.add_argument("store", metavar="STORE")
    _add_json(one)
    _add_reading(one)
    one.set_defaults(run=lambda args: show_info(args.store, args.json, opening_of(args)))

    one = _command(commands, "manifest", "let a web server show a store")
    one.description = """Write what a store has now into its .tilekv/manifest, by which it is opened over http:// and https://:
        web servers do not list what they have. Readers there see this until the next manifest."""
    one.epilog = f"example: {program} manifest photos.kv"
    one.add_argument("store", metavar="STORE")
    one.set_defaults(run=lambda args: show_manifest(args.store, options_of(args)))

    one = _command(commands, "consolidate", "merge all fragments into one")
    one.description = """Merge all fragments into one, without what was overwritten or deleted. What was merged stays, so that
        the past can still be read, until a vacuum removes it."""
    one.epilog = f"example: {program} consolidate --vacuum photos.kv"
    one.add_argument("store", metavar="STORE")
    one.add_argument("--vacuum", action="store_true", help="remove what was merged, too")
    _add_workers(one, "a fragment for each 256 MiB, written by so many processes")
    _add_progress(one)
    _add_config(one)
    one.set_defaults(
        run=lambda args: consolidate_store(
            args.store, args.vacuum, args.workers, _shown(args), opening_of(args)
        )
    )

    one = _command(commands, "upkeep", "merge what pays, and remove what history no longer needs")
    one.description = """Merge small fragments that lie beside one another in time, the smallest first, and remove what was
        superseded longer ago than the store's history says. Programs that write do the same by themselves, up to merges of
        64 MiB, unless kv.upkeep is off."""
    one.epilog = f"example: {program} upkeep --watch 60 photos.kv"
    one.add_argument("store", metavar="STORE")
    how = one.add_mutually_exclusive_group()
    how.add_argument(
        "--once", action="store_true", help="do what there is to do, and end (the default)"
    )
    how.add_argument(
        "--watch",
        metavar="SECONDS",
        type=_every,
        help="again and again, until SIGTERM or SIGINT: a line each time that something was done",
    )
    how.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    _add_config(one)
    one.set_defaults(
        run=lambda args: keep_store(args.store, args.watch, args.dry_run, opening_of(args))
    )

    one = _command(commands, "vacuum", "remove what merges have replaced")
    one.description = """Remove the fragments that merges have replaced, and the past with them; also what crashed writers have
        left behind."""
    one.epilog = f"example: {program} vacuum --history 7d photos.kv"
    one.add_argument("store", metavar="STORE")
    one.add_argument(
        "--history",
        metavar="TIME",
        type=_span,
        default=0,
        help="""keep what was replaced in this last time: seconds, or 10m, 2h, 3d; or never remove it. Unless it is 0, the
            default, the store keeps so much from now on""",
    )
    _add_progress(one)
    _add_config(one)
    one.set_defaults(
        run=lambda args: vacuum_store(args.store, args.history, _shown(args), opening_of(args))
    )

    one = _command(commands, "backup", "copy a store while others write to it")
    one.description = """Copy STORE as it is at one moment to DESTINATION, which is a store itself, while others write,
        consolidate and vacuum. Again to the same DESTINATION only what is new is copied, and what STORE has no more is removed.
        To restore, copy back."""
    one.epilog = (
        f"example: {program} backup photos.kv /mnt/photos.kv && {program} verify /mnt/photos.kv"
    )
    one.add_argument("store", metavar="STORE")
    one.add_argument(
        "destination", metavar="DESTINATION", help="a new place, or the last backup of STORE"
    )
    _add_progress(one)
    one.set_defaults(
        run=lambda args: backup_store(args.store, args.destination, _shown(args), options_of(args))
    )

    one = _command(commands, "serve", "serve a store to clients of Redis")
    one.description = """Serve STORE by the protocol of Redis, to programs that keep blobs, sessions and cache entries in it:
        strings, expiry, transactions, publish and subscribe. One server writes to a store; others read, and one that is given
        --readonly serves what they see. What was written last is flushed within a second, and when the server ends."""
    one.epilog = f"example: {program} serve cache.kv --port 6380 --unixsocket cache.sock"
    one.add_argument("store", metavar="STORE", help="created if it is missing")
    add_options(one)
    one.set_defaults(run=serve_store)

    one = _command(commands, "browse", "look at a store in a browser")
    one.description = """Show STORE by pages for a browser of this machine, until it is interrupted: keys by prefix, values as
        pictures, JSON, text or hexadecimal, fragments and advice. It prints their URL: whoever has it can read the store
        while this runs. Nothing is ever changed."""
    one.epilog = f"example: {program} browse photos.kv --open"
    one.add_argument("store", metavar="STORE")
    one.add_argument(
        "--port",
        metavar="N",
        type=_port,
        default=0,
        help="of 127.0.0.1 (default: one that is free)",
    )
    one.add_argument("--open", action="store_true", help="open the pages in the browser")
    _add_reading(one)
    one.set_defaults(run=_browse)

    one = _command(commands, "convert", "make a tilekv store of one that TileDB 1.x wrote")
    one.description = """Copy every entry of OLD, a key-value store of TileDB 1.3 to 1.7 or of tilekv, to NEW. Keys and values
        keep their types. OLD is only read."""
    one.epilog = f"example: {program} convert old.kv new.kv"
    one.add_argument("old", metavar="OLD")
    one.add_argument("new", metavar="NEW", help="must not be there")
    one.add_argument(
        "--key-file", metavar="FILE", help="the 32 bytes that open OLD if it is encrypted"
    )
    one.add_argument(
        "--expires",
        action="store_true",
        help="NEW can keep moments of expiry, as put --expire gives them; what OLD has of them is kept without it, too",
    )
    _add_progress(one)
    one.set_defaults(
        run=lambda args: convert_store(
            args.old, args.new, args.key_file, args.expires, _shown(args), options_of(args)
        )
    )

    one = _command(commands, "verify", "check every checksum and every digest")
    one.description = """Check every file of the store, whether it opens or not: every checksum, every digest, what consolidations
        have replaced. All problems are listed; the exit code is 1 if there is one. With --json: an object of uri, sound (bool),
        fragments and cells (how many were checked), and problems, a list of objects of fragment (empty for a file of the store
        itself), file, offset (a byte, or null) and message."""
    one.epilog = f"example: {program} verify photos.kv"
    one.add_argument("store", metavar="STORE")
    _add_workers(one, "have fragments checked by so many processes")
    _add_json(one)
    one.set_defaults(
        run=lambda args: show_problems(args.store, args.workers, args.json, options_of(args))
    )

    one = _command(commands, "salvage", "copy what is whole out of a damaged store")
    one.description = """Copy every entry of OLD that is proven right and current to NEW, and say what could not be copied. An
        entry that a newer one may have replaced, in a part that cannot be read, is not passed off as current. The exit code is
        1 if anything may be missing. OLD is only read. With --json: an object of copied, stale and lost (numbers of entries),
        unreadable (fragments), problems (as verify has them) and rebuilt (texts)."""
    one.epilog = f"example: {program} salvage broken.kv new.kv --stale old-values.kv"
    one.add_argument("old", metavar="OLD")
    one.add_argument("new", metavar="NEW", help="must not be there")
    one.add_argument(
        "--stale", metavar="STORE", help="make a store of the entries that may be out of date"
    )
    _add_json(one)
    _add_progress(one)
    one.set_defaults(
        run=lambda args: salvage_store(
            args.old, args.new, args.stale, args.json, _shown(args), options_of(args)
        )
    )
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name."""
    (found,) = [
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(found.choices)


def _import(args: argparse.Namespace) -> int:
    opening = opening_of(args)
    if args.batch_bytes is not None:
        config = {**(opening.config or {}), "kv.buffer_bytes": args.batch_bytes}
        opening = replace(opening, config=config)
    if is_redis(args.dir):
        return import_redis(args.dir, args.store, _shown(args), opening)
    if args.kind is None and is_tree(args.dir):
        return import_tree(args.dir, args.store, args.expires, _shown(args), opening)
    return import_database(
        args.dir,
        args.store,
        args.kind,
        args.table,
        args.key,
        args.text_keys,
        args.pickle,
        args.expires,
        _shown(args),
        opening,
    )


def _browse(args: argparse.Namespace) -> int:
    from tilekv.cli.browse import (
        browse_store,  # which brings the HTTP server of the standard library
    )

    return browse_store(args.store, args.port, args.open, opening_of(args))


def _copy(args: argparse.Namespace) -> int:
    if args.keys and (args.prefix is not None or args.glob is not None):
        raise InvalidValueError("cp takes KEYs, or --prefix and --glob")
    keys = [key_of(key, args.type) for key in args.keys]
    report = reporter(_shown(args), "copying")
    return copy_keys(
        args.source,
        args.store,
        keys,
        args.prefix,
        args.glob,
        args.expires,
        report,
        opening_of(args),
    )


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.add_argument(
        "--storage-option",
        metavar="NAME=VALUE",
        action="append",
        type=option_of,
        help="of a store on object storage, such as region=eu-central-1; again for each. Others come from the environment",
    )
    return made


def _add_attr(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--attr", metavar="NAME", help="the attribute, of a store that has several"
    )


def _add_type(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--type",
        choices=KEY_TYPES,
        default="str",
        help="what KEY is (default: str): 7 and '7' are two keys",
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        metavar="KEY=VALUE",
        action="append",
        type=config_of,
        help="an option of the handle, such as kv.threads=2 or kv.cache_bytes=1GiB; again for each",
    )


def _add_reading(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument(
        "--timestamp",
        metavar="TIME",
        type=moment_of,
        help="the store as it was then: 2024-05-01, 2024-05-01T12:00:00+02:00, or ms since 1970",
    )
    command.add_argument(
        "--ignore-newer",
        action="store_true",
        help="without what TileDB 2 has added, in a format that is not read",
    )


def _add_form(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-l", dest="long", action="store_true", help="with size of the value and type of the key"
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "-0", dest="zero", action="store_true", help="keys as they are, a NUL behind each: xargs -0"
    )
    how.add_argument(
        "--json",
        action="store_true",
        help="an object a line, of key and type, and of size with -l; bytes are hexadecimal",
    )


def _form(args: argparse.Namespace) -> Form:
    return Form(args.long, args.zero, args.json)


def _add_workers(one: argparse.ArgumentParser, what: str) -> None:
    one.add_argument("--workers", metavar="N", type=_workers, help=what)


def _add_progress(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show progress on stderr, or not (default: if stderr is a terminal)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")


def _workers(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1024):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes, 1 to 1024")
    return int(text)


def _size(text: str) -> int:
    try:
        return Config.of({"kv.buffer_bytes": text}).buffer_bytes
    except TileKVError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _part(text: str) -> slice:
    start, colon, stop = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return slice(*[int(word) if word else None for word in (start, stop)])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no START:STOP such as 100:200") from None


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of folders")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)


def _every(text: str) -> float:
    seconds = _span(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time to wait")
    return seconds


def _span(text: str) -> float:
    try:
        return seconds_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of seconds, nor one of minutes, hours or days such as 10m, 2h or 3d, nor never"
        ) from None


def _shown(args: argparse.Namespace) -> bool:
    """Whether progress is shown."""
    return sys.stderr.isatty() if args.progress is None else args.progress
