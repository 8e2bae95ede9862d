"""What the tests of columns share: stores in memory; and what they need, which is not installed where a wheel is tested."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest

import tilekv
from tilekv import Attr, Schema

# pandas, polars and pyarrow take our columns and give us theirs; some of the fuzzer's samples are encrypted.
if not all(map(find_spec, ("pandas", "polars", "pyarrow", "cryptography"))):
    collect_ignore_glob = ["test_arrow*.py", "test_exact.py", "test_keys.py", "test_types.py"]


@pytest.fixture
def store() -> Iterator[Callable[..., tilekv.Store]]:
    """Makes stores of some attributes (one of bytes, `v`, unless given), and closes them."""
    with contextlib.ExitStack() as stack:

        def make(*attrs: Attr) -> tilekv.Store:
            schema = Schema(list(attrs) or [Attr("v", bytes)])
            return stack.enter_context(tilekv.open(f"memory://{uuid.uuid4()}", "x", schema=schema))

        yield make
