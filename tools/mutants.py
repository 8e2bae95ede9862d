"""Whether each of a few faults fails the unit file that it belongs to, alone: once, only distant tests noticed them.

usage: tools/mutants.py [NAME...]    in the environment that has tilekv; without names, all
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PASSED, FAILED = 0, 1  # how pytest ends; anything else is no answer


class Mutant(NamedTuple):
    """A fault: in `module` of the package, `right`, which stands there once, becomes `wrong`; `tests` must notice."""

    module: str
    right: str
    wrong: str
    tests: str


MUTANTS = {
    # A consolidation whose outputs have any size.
    "limit": Mutant(
        "consolidation.py",
        "if not len(self.portion) or (self._left <= 0 and self.portion.begins_after(portion)):",
        "if not len(self.portion):",
        "tests/unit/test_consolidation.py",
    ),
    # One that counts what it has written before as part of every later output.
    "limit-counted-on": Mutant(
        "consolidation.py",
        "self._left = self._most\n        while True:",
        "while True:",
        "tests/unit/test_consolidation.py",
    ),
    # A flush that begins while one of the same handle is under way, in a signal handler, say.
    "second-flush": Mutant(
        "flusher.py",
        'if self._busy:\n            raise TileKVError("flush was called from within a flush of the same handle")',
        "pass",
        "tests/unit/test_flusher.py",
    ),
    # A frozen buffer that a flush which failed has left, taken for one that another thread is about to write.
    "failed-flush": Mutant(
        "flusher.py",
        "if self._frozen is not None and not self._failed:",
        "if self._frozen is not None:",
        "tests/unit/test_flusher.py",
    ),
    # A list that is removed before it is durable that its fragments are hidden: after a crash they are seen again.
    "sync-after-hiding": Mutant(
        "storage/local.py",
        "for path in sorted(changed):\n                self._sync_folder(path)",
        "pass",
        "tests/unit/test_storage.py",
    ),
    # Two keys that set one option: the last one wins.
    "option-twice": Mutant(
        "config.py",
        "if name in first:",
        "if False:",
        "tests/unit/test_config.py",
    ),
}


def say(text: str) -> None:
    """One line."""
    print(f"tilekv: {text}", flush=True)


def copied(place: Path) -> Path:
    """A copy of the installed package, which a process whose PYTHONPATH is `place` imports."""
    found = subprocess.run(
        [sys.executable, "-P", "-c", "import tilekv; print(tilekv.__path__[0])"],
        capture_output=True, check=True, text=True, env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(found.stdout.strip(), place / "tilekv", ignore=ignored))


def run(package: Path, tests: str) -> tuple[int, str]:
    """How pytest ends, and what it says."""
    settings = {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests],
        cwd=ROOT, env=os.environ | settings, capture_output=True, check=False, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def misplaced(package: Path, mutant: Mutant) -> str | None:
    """Why a mutant cannot be made, if it cannot: the code has changed."""
    times = (package / mutant.module).read_text().count(mutant.right)
    return None if times == 1 else f"{mutant.module} has {times} times, not once: {mutant.right!r}"


def survives(package: Path, mutant: Mutant) -> str | None:
    """Why a mutant is not noticed, or cannot be made; None when it is noticed."""
    if complaint := misplaced(package, mutant):
        return complaint
    file = package / mutant.module
    text = file.read_text()
    file.write_text(text.replace(mutant.right, mutant.wrong))
    try:
        code, output = run(package, mutant.tests)
    finally:
        file.write_text(text)
    if code == FAILED:
        failed = re.search(r"^FAILED \S*::(\S+)", output, re.MULTILINE)
        # An error of a fixture is no test that fails.
        return None if failed else f"no test of {mutant.tests} failed:\n{output}"
    if code == PASSED:
        return f"{mutant.tests} passes with it"
    return f"{mutant.tests} cannot be run with it:\n{output}"


def main(names: list[str]) -> int:
    """Run those of these names; the number of complaints."""
    unknown = set(names) - set(MUTANTS)
    if unknown:
        say(f"there is no mutant {', '.join(sorted(unknown))}; there are {', '.join(MUTANTS)}")
        return 2
    chosen = {name: mutant for name, mutant in MUTANTS.items() if not names or name in names}
    complaints = 0
    with tempfile.TemporaryDirectory() as place:
        package = copied(Path(place))
        for tests in sorted({mutant.tests for mutant in chosen.values()}):
            code, output = run(package, tests)
            if code != PASSED:
                say(f"{tests} does not pass as it is:\n{output}")
                return 1
        for name, mutant in chosen.items():
            complaint = survives(package, mutant)
            say(f"mutant {name}: " + (complaint or f"noticed by {mutant.tests}"))
            complaints += complaint is not None
    return int(complaints > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
