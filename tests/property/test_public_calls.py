"""No public call raises anything but errors of tilekv, of the system, of the signature, or the caller's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from public_calls import exercised
from samples import NIGHTLY, SEED

ROUNDS = 1000 if NIGHTLY else 15


def test_odd_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[..., None]
) -> None:
    place = tmp_path / "within" / "within"  # "..", too, names nothing that is anybody's
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    print(f"seed: TILEKV_SEED={SEED}")
    calls, complaints = exercised(SEED, ROUNDS)
    assert not complaints, "\n".join([f"seed: TILEKV_SEED={SEED}", *complaints])
    tally("public calls with odd objects", calls)
