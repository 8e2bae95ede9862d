"""tests/support/samples.py: what a run of the tests chooses by chance."""

import runpy
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "support" / "samples.py"


def drawn() -> int:
    seed: int = runpy.run_path(str(SAMPLES))["SEED"]
    return seed


def test_processes_of_one_run_have_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "TILEKV_SEED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "a run")
    first = drawn()
    assert drawn() == first
    monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", "another")
    assert drawn() != first
    monkeypatch.delenv("PYTEST_XDIST_TESTRUNUID")
    assert drawn() != drawn()


def test_a_seed_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("TILEKV_SEED", "7")
    assert drawn() == 7
    monkeypatch.delenv("TILEKV_SEED")
    assert drawn() == 1
