"""A signal that is pending at every look for signals: Ctrl-C at any of them, however fast or busy the machine is.

Python code looks at calls and jumps, compiled code where it says so. KeyboardInterrupt is raised at a look and nowhere else.
"""

from __future__ import annotations

import ctypes
import gc
import signal
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from operator import length_hint

MOST = 1 << 40  # looks: never

# As if the signal of a number had come.
_come = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)(("PyErr_SetInterruptEx", ctypes.pythonapi))


def looks(call: Callable[[], object]) -> int:
    """How often a call looks for signals. A few looks are this function's, more those of what is imported the first time."""
    return _call(call, MOST)


def interrupt(call: Callable[[], object], after: int) -> bool:
    """Whether a call was ended by Ctrl-C, which comes after so many looks."""
    try:
        _call(call, after)
    except KeyboardInterrupt:
        return True
    return False


def _call(call: Callable[[], object], after: int) -> int:
    left = repeat(signal.SIGALRM, after)
    # No Python code, which would look itself: a C function that does nothing, and what its result is converted by.
    handler = ctypes.PyDLL(None)["Py_IsInitialized"]
    handler.argtypes = (ctypes.c_int, ctypes.py_object)
    handler.restype = partial(next, map(_come, chain(left, [signal.SIGINT])))
    alarm = signal.signal(signal.SIGALRM, handler)
    # Whoever was started in the background has inherited that it is ignored.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # what others do at a collection would be counted
    try:
        try:
            _come(signal.SIGALRM)
            call()
        finally:
            signal.signal(signal.SIGALRM, _once)
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, ctrl_c)
    return after - length_hint(left)


def _once(number: int, frame: object) -> None:
    """Takes what is pending, and leaves nothing."""
