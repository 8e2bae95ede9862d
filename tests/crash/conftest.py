"""Where stores are interrupted."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nobody_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted flush has left, a merge would wait for: a second, a thousand times."""
    monkeypatch.setattr("tilekv.consolidation.DRAFTS_S", 0)
