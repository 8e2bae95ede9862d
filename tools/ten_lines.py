"""The pages of docs/ten-lines, each run as a stranger would: a wheel of this tree, in an environment made for that page alone.

usage: python -P tools/ten_lines.py    in an environment that has what builds the package

Such an environment has the wheel with the one extra that its page names, and nothing of the one that builds. What a line prints
must be what the comment behind it says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "ten-lines"
LINES = 10


class Page(NamedTuple):
    """What a page promises: `extra` is all that `code` needs, which prints `printed`."""

    extra: str
    code: str
    printed: list[str]


def read(text: str) -> Page:
    """The page of a Markdown text; ValueError if it has not one extra, and one block of code of at most ten lines."""
    fences = re.findall(r"^```", text, re.MULTILINE)
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    extras = re.findall(r"`tilekv\[(\w+)\]`", text)
    if len(fences) != 2 or len(blocks) != 1 or re.search(r"^    ", text.replace(blocks[0], "")):
        raise ValueError("a page has one block, of Python")
    if len(extras) != 1:
        raise ValueError(f"a page names one extra, not {extras}")
    if blocks[0].count("\n") > LINES:
        raise ValueError(f"{blocks[0].count(chr(10))} lines of code, not {LINES} at most")
    printed = re.findall(r"^ *print\(.*\)  # (.+)$", blocks[0], re.MULTILINE)
    if not printed:
        raise ValueError("a page prints something, with what it is behind it")
    return Page(extras[0], blocks[0], printed)


def pip(*arguments: str) -> None:
    """Run the pip of this environment. Its warnings are of the machine's own settings."""
    quiet = ["--disable-pip-version-check", "--quiet", "--quiet"]
    subprocess.run([sys.executable, "-P", "-m", "pip", *quiet, *arguments], check=True)


def constraints() -> list[str]:
    """What pip must not choose for itself: the torch of a plain requirement is gigabytes of CUDA."""
    try:
        return [f"torch=={version('torch')}"]
    except PackageNotFoundError:
        return []


def run(page: Page, wheel: Path, work: Path) -> list[str]:
    """The lines that `page` prints, in an environment and a folder of its own below `work`."""
    (work / "constraints.txt").write_text("\n".join(constraints()))
    (work / "page.py").write_text(page.code)
    (work / "here").mkdir()
    venv.create(work / "venv", symlinks=True)
    python = str(work / "venv" / "bin" / "python")
    install = ["--python", python, "install", "--no-compile", "--only-binary", ":all:"]
    pip(*install, "--constraint", str(work / "constraints.txt"), f"{wheel}[{page.extra}]")
    # Isolated: neither the folder of the script nor PYTHONPATH could bring another tilekv.
    command = [python, "-I", str(work / "page.py")]
    ran = subprocess.run(command, cwd=work / "here", stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.splitlines()


def main() -> int:
    """Run all pages; 1 when one does not do what it says."""
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="tilekv-ten-lines-") as folder:
        work = Path(folder)
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, str(ROOT))
        (wheel,) = work.glob("*.whl")
        for path in sorted(FOLDER.glob("*.md")):
            page = read(path.read_text())
            if page.extra == "torch" and not constraints():
                print(f"tilekv: {path.name} is not run: there is no torch for the processor here")
                continue
            with tempfile.TemporaryDirectory(prefix=f"{path.stem}-", dir=work) as own:
                printed = run(page, wheel, Path(own))
            if printed != page.printed:
                wrong = 1
                print(f"tilekv: {path.name} printed {printed}, not {page.printed}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
