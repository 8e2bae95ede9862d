"""What the tests of adapters share."""

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from tilekv.fsspec import TilekvFileSystem


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """zarr's tests are coroutines: what pytest-asyncio would do for them."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    wanted = inspect.signature(test).parameters
    asyncio.run(test(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture(autouse=True)
def other_file_systems() -> Iterator[None]:
    """fsspec keeps instances: those of one test are not for the next."""
    yield
    TilekvFileSystem.clear_instance_cache()
