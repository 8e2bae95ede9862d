"""What a release tests of itself, `make wheels-test`, goes on working between releases."""

import argparse
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import tilekv
from repository import ROOT
from tilekv.cli.command import build_parser, commands_of

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_wheels_need_no_peers_for_their_tests() -> None:
    """cibuildwheel installs the group `unit` and no more: no test module may need more to be collected."""
    settings = PYPROJECT["tool"]["cibuildwheel"]
    assert settings["test-groups"] == ["unit"]
    command, *paths = settings["test-command"].split()
    assert command == "pytest"
    groups = PYPROJECT["dependency-groups"]
    names = {
        re.split(r"[\[<>=~; ]", each)[0]
        for each in groups["test"] + groups["bench"]
        if isinstance(each, str)
    }
    peers = sorted(
        module
        for module, owners in packages_distributions().items()
        if names.intersection(map(str.lower, owners))
    )
    assert {"pandas", "pyarrow", "tiledb", "lz4"} <= set(peers)
    collect = textwrap.dedent(f"""
        import sys, pytest
        sys.modules.update(dict.fromkeys({peers!r}))  # None: the import system says ModuleNotFoundError
        sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *{paths!r}]))
    """)
    run = subprocess.run(
        [sys.executable, "-P", "-c", collect],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # pytest-benchmark is a peer too
        capture_output=True,
        check=False,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


CHANGELOG = Path(ROOT, "CHANGELOG.md").read_text()


def test_the_version_is_one() -> None:
    """That of the newest changes; between two releases that of the next one."""
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    told = re.findall(r"^## ([\d.]+), ", CHANGELOG, re.MULTILINE)
    number = tilekv.__version__.removesuffix(".dev0")
    assert (number == told[0]) if number == tilekv.__version__ else (number not in told)


def test_changes_have_a_place_to_go_to() -> None:
    """`make lint` has towncrier read them."""
    settings = PYPROJECT["tool"]["towncrier"]
    before, mark, after = CHANGELOG.partition(settings["start_string"])
    assert mark
    assert "\n## " not in before
    assert after.startswith("\n## ")
    folder = ROOT / settings["directory"]
    kinds = {each["directory"] for each in settings["type"]}
    assert kinds == {"format", "added", "changed", "fixed", "removed"}
    assert {
        kind for kind in kinds if f"`{kind}`" not in (folder / "README.md").read_text()
    } == set()


def test_the_manual_page_has_every_command_and_what_is_told_of_it() -> None:
    """`make man` makes it anew; a wheel installs it where man looks."""
    assert PYPROJECT["tool"]["setuptools"]["data-files"] == {"share/man/man1": ["docs/tilekv.1"]}
    page = Path(ROOT, "docs/tilekv.1").read_text()
    assert f'"tilekv {tilekv.__version__}"' in page
    told = words(re.sub(r"\\f[BIR]|\\[,/]", "", page).replace("\\-", "-"))
    commands = commands_of(build_parser())
    assert len(commands) > 15
    for name, command in commands.items():
        section = told.partition(f" .SS tilekv {name} ")[2].partition(" .SS ")[0]
        assert words(command.description) in section, name
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                assert words(action.help) in section, (name, action.dest)
                for option in action.option_strings:
                    assert f" {option} " in section.replace(",", " "), (name, option)


def words(text: str | None) -> str:
    """Text without what breaks its lines, as it is shown."""
    return " ".join((text or "").replace("%%", "%").split())
