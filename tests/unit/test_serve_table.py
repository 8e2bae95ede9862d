"""The table of commands: what the documentation says of it, what COMMAND says, and that all of it can be called."""

import re
from pathlib import Path

import numpy as np
import pytest

from redis_server import Client, serving
from tilekv.cli.command import build_parser
from tilekv.cli.serve import options_of
from tilekv.errors import InvalidValueError
from tilekv.kvcore.serve.resp import ReplyError
from tilekv.serve.server import TABLES
from tilekv.serve.table import COMMANDS, SUBCOMMANDS, long_double

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"


def test_the_page_has_every_command() -> None:
    table = PAGE.read_text().partition("## Commands")[2].partition("\n## ")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("|")]
    told = [name for row in rows for name in re.findall(r"`([A-Z]+)`", row)]
    assert len(TABLES) == 6
    assert sorted(told) == sorted(name.decode() for name in COMMANDS)


def test_every_command_has_a_summary_and_containers_have_something_in_them() -> None:
    for entry in [*COMMANDS.values(), *SUBCOMMANDS.values()]:
        assert entry.summary
        assert entry.arity
    assert {container for container, _ in SUBCOMMANDS} <= {*COMMANDS}


def test_no_words_are_a_fault_of_a_command(folder: Path) -> None:
    """Every command with every number of the same few words: an answer, or an error of its own, never a fault of ours."""
    words = [b"", b"1", b"-1", b"a", b"GET", b"\xff"]
    with serving(folder, databases=2) as server, Client(server.options.unixsocket) as ask:
        for name in COMMANDS:
            if name in (
                b"QUIT",
                b"SUBSCRIBE",
                b"PSUBSCRIBE",
                b"SSUBSCRIBE",
                b"CLIENT",
                b"RESET",
                b"MULTI",
            ):
                continue
            for n in range(6):
                for word in words:
                    reply = ask(name, *[word] * n)
                    assert not (isinstance(reply, str) and "Error:" in reply), (name, word, n)
        ask("DISCARD")
        for container, name in SUBCOMMANDS:
            for n in range(5):
                for word in words:
                    if (container, name) == (b"CLIENT", b"REPLY"):
                        continue
                    reply = ask(container, name, *[word] * n)
                    assert not (isinstance(reply, str) and "Error:" in reply), (name, word, n)


def test_what_command_says(folder: Path) -> None:
    with serving(folder) as server, Client(server.options.unixsocket) as ask:
        assert ask("COMMAND", "COUNT") == len(COMMANDS)
        get = ask("COMMAND", "INFO", "get", "nosuch")
        assert get[0][:2] == [b"get", 2]
        assert get[0][3:6] == [1, 1, 1]
        assert get[1] is None
        assert ask("COMMAND", "GETKEYS", "MSET", "a", 1, "b", 2) == [b"a", b"b"]
        assert ask("COMMAND", "GETKEYS", "EVAL", "x", 1, "a", "b") == [b"a"]
        assert b"summary" in ask("COMMAND", "DOCS", "set")[1]
        assert len(ask("COMMAND")) == len(COMMANDS)
        assert b"client|id" in ask("COMMAND", "LIST")


def test_options_of_a_file_and_of_the_line(tmp_path: Path) -> None:
    config, secret = tmp_path / "c", tmp_path / "p"
    config.write_text("# a line\nport 7000\nappendfsync always\nbind 0.0.0.0\n\nmax-bytes 1gb\n")
    secret.write_text("word\n")
    words = ["serve", "s.kv", "--config", str(config), "--port", "7001"]
    with pytest.raises(InvalidValueError, match="asks for a password"):
        options_of(build_parser().parse_args(words), None)
    args = build_parser().parse_args([*words, "--password-file", str(secret), "--readonly"])
    options, logfile = options_of(args, None)
    assert (options.port, options.appendfsync, options.bind) == (7001, "always", ("0.0.0.0",))
    assert (options.max_bytes, options.password, options.readonly, logfile) == (
        1 << 30,
        "word",
        True,
        "",
    )
    config.write_text("port\n")
    with pytest.raises(InvalidValueError, match="line 1 has a name and no value"):
        options_of(args, None)


@pytest.mark.filterwarnings("error")
def test_numbers_are_read_as_strtold_reads_them() -> None:
    limits = np.finfo(np.longdouble)
    assert long_double(str(limits.max).encode()) == limits.max
    for text, number in [
        (b"-2.25", -2.25),
        (b"1e400", np.longdouble("1e400")),
        (b"0e99999", 0),
        (b"-inf", -np.inf),
        (b"0x10", 16),
    ]:
        assert long_double(text) == number
    for text in [
        b"",
        b" 1",
        b"1 ",
        b"1\0",
        b"1_0",
        b"nan",
        b"1e99999",
        b"-1e99999",
        b"1e-99999",
        b"\xff",
        b"--1",
    ]:
        with pytest.raises(ReplyError, match="not a valid float"):
            long_double(text)
