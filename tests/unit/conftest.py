"""What the tests of columns share: stores in memory."""

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

import tilekv
from tilekv import Attr, Schema


@pytest.fixture
def store() -> Iterator[Callable[..., tilekv.Store]]:
    """Makes stores of some attributes (one of bytes, `v`, unless given), and closes them."""
    with contextlib.ExitStack() as stack:

        def make(*attrs: Attr) -> tilekv.Store:
            schema = Schema(list(attrs) or [Attr("v", bytes)])
            return stack.enter_context(tilekv.open(f"memory://{uuid.uuid4()}", "x", schema=schema))

        yield make
