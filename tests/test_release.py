"""What a release tests of itself, `make wheels-test`, goes on working between releases."""

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


def test_the_version_is_one() -> None:
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert tilekv.__version__ in Path(ROOT, "CHANGELOG.md").read_text()
