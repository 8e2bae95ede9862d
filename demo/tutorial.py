"""The two programs of TileDB's tutorial on key-value stores, and what they leave on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tilekv.names import FragmentName

HERE = Path(__file__).resolve().parent
PROGRAMS = ("tutorial_py.py", "tutorial_cpp.py")


def show_tutorial(folder: Path) -> None:
    """Run both programs in `folder`, which has no stores of theirs yet, and list the store of the second.

    Raises
    ------
    subprocess.CalledProcessError
        When a program, or the listing, fails.
    """
    for program in PROGRAMS:
        # -P: what is imported is the installed package, and nothing that happens to lie beside the program.
        show(f"python {program}", [sys.executable, "-P", str(HERE / program)], folder)
    store = folder / "my_map"
    fragments = sorted(name for name in os.listdir(store) if FragmentName.parse(name))
    for place in (store.name, f"{store.name}/{fragments[0]}"):
        show(f"ls -l {place}", ["ls", "-l", place], folder)


def show(shown: str, command: list[str], folder: Path) -> None:
    """Run a command in `folder`, and print it as typed and what it prints, indented."""
    quiet = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=folder, env=quiet, check=True, stdout=subprocess.PIPE, text=True
    )
    print(f"  $ {shown}")
    for line in done.stdout.splitlines():
        print(f"  {line}".rstrip())
    print(flush=True)


if __name__ == "__main__":
    show_tutorial(Path(sys.argv[1]))
