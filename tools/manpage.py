"""The manual page of the command line, made of its parser by argparse-manpage: python tools/manpage.py prints it."""

import os
import sys

from argparse_manpage.manpage import Manpage

from tilekv.cli.command import SCRIPT, build_parser, commands_of
from tilekv.version import VERSION


def page() -> str:
    """The page, as `man` reads it: the same for the same parser, whatever the day and the terminal."""
    os.environ["COLUMNS"] = "1000"  # man breaks lines
    sys.argv[0] = SCRIPT  # which examples are for
    parser = build_parser()
    for command in commands_of(parser).values():
        told = " ".join((command.description or "").split())
        command.description = f"{told}\n\n{command.epilog}"
    made = Manpage(parser, format="single-commands-section")
    made.description = "a compressed key-value store: entries in and out, and upkeep"
    made.source = f"tilekv {VERSION}"
    made.manual = "User Commands"
    made.date = ""  # a page of one day would be another one the next
    headed = str(made).replace(".SH\nPOSITIONAL ARGUMENTS", ".SH COMMANDS")
    return headed.replace(".SH COMMENTS", ".SH EXAMPLES")


if __name__ == "__main__":
    sys.stdout.write(page())
