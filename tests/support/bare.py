"""Every class of tilekv made without what it is made of, and then used: an error or a working object, never the end
of the process.

Run as a program: each attempt is a child of it, and it prints those that a signal ended, and how many there were.
"""

import copy
import copyreg
import faulthandler
import gc
import importlib
import os
import pickle
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import tilekv
import tilekv.kvcore


def exported_and_compiled() -> list[type]:
    """All classes of `tilekv.__all__` and of the compiled modules."""
    found = [getattr(tilekv, name) for name in tilekv.__all__]
    for module in pkgutil.walk_packages(tilekv.kvcore.__path__, "tilekv.kvcore."):
        found += vars(importlib.import_module(module.name)).values()
    own = {
        each for each in found if isinstance(each, type) and each.__module__.startswith("tilekv")
    }
    return sorted(own, key=lambda each: (each.__module__, each.__qualname__))


def _subclass(cls: type) -> type:
    return type("Sub", (cls,), {})


WAYS: dict[str, Callable[[type], object]] = {
    "cls()": lambda cls: cls(),
    "cls.__new__(cls)": lambda cls: cls.__new__(cls),
    "object.__new__(cls)": object.__new__,
    "a subclass": lambda cls: _subclass(cls)(),
    "__new__ of a subclass": lambda cls: (sub := _subclass(cls)).__new__(sub),
    "copyreg": copyreg.__newobj__,  # type: ignore[attr-defined]
    **{f"{n} times None": lambda cls, n=n: cls(*[None] * n) for n in range(1, 7)},  # type: ignore[misc]
}


def _call(do: Callable[[], object]) -> None:
    # Whatever Python can say is well.
    with suppress(Exception):
        do()


def use(made: Any) -> None:
    """All that can be done with an object, as wrongly as it can be."""

    def enter() -> None:
        with made:
            pass

    for do in (
        lambda: copy.copy(made),
        lambda: copy.deepcopy(made),
        lambda: pickle.dumps(made),
        lambda: repr(made),
        lambda: len(made),
        lambda: bool(made),
        lambda: list(made),
        lambda: next(made),
        lambda: made[0],
        lambda: made["a"],
        lambda: made == made,
        lambda: hash(made),
        lambda: 0 in made,
        lambda: made.__setitem__("a", b""),
        lambda: made.__delitem__("a"),
        enter,
    ):
        _call(do)
    for name in dir(made):
        for args in ((), (None,), (0,), ("",), (None,) * 2, (0,) * 2, (None,) * 3, (None,) * 5):
            _call(lambda name=name, args=args: getattr(made, name)(*args))  # type: ignore[misc]


def attempt(cls: type, way: Callable[[type], object]) -> None:
    """Make it and use it."""
    with suppress(Exception):
        made = way(cls)
        use(made)
        del made
    gc.collect()


def survives(do: Callable[[], None]) -> bool:
    """Whether a child of this process that does it comes to its end."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        do()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(names: Iterable[str]) -> None:
    warnings.simplefilter("ignore")
    gc.freeze()  # what is here already is not looked through again in every child
    wanted = set(names)
    tried = 0
    for cls in exported_and_compiled():
        if wanted and cls.__name__ not in wanted:
            continue
        for word, way in WAYS.items():
            tried += 1
            if not survives(lambda cls=cls, way=way: attempt(cls, way)):  # type: ignore[misc]
                print(f"{cls.__module__}.{cls.__qualname__}: {word}", flush=True)
    print(f"tried {tried}")


if __name__ == "__main__":
    main(sys.argv[1:])
