"""What an ordinary run of the tests goes through of all that there is, which the nightly run does.

Cases that are chosen by chance are others in every run, but not where `CI` is set: there a failure must come again when the run
is repeated, and no submission must fail by dice that another was spared. TILEKV_SEED names the seed of a run.
"""

import os
import random
from collections.abc import Iterable
from typing import Final, TypeVar

T = TypeVar("T")

NIGHTLY: Final = bool(os.environ.get("TILEKV_NIGHTLY"))
# The processes of one run have one seed: by it they choose which tests there are, and pytest-xdist wants the same in each.
RUN: Final = os.environ.get("PYTEST_XDIST_TESTRUNUID")
SEED: Final = int(
    os.environ.get("TILEKV_SEED")
    or (1 if os.environ.get("CI") else random.Random(RUN).randrange(1 << 32))
)


def some(cases: Iterable[T], of: int) -> list[T]:
    """Every `of`-th case, from one on that the seed chooses; all in a nightly run."""
    every = list(cases)
    if NIGHTLY:
        return every
    return every[SEED % of :: of] or every[:1]
