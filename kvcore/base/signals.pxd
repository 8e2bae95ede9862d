"""Ctrl-C in long calls. Python runs signal handlers between bytecodes, of which a call of millions of rows has one.

A handler is Python code, and may use the handle that is at work: look only where a caller's Python code could run too.
"""

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    ROWS = 1 << 14              # between two looks while the GIL is held: some milliseconds
    CELLS = 1 << 17             # without it: some 10 ms, since it may have to be waited for


# Without the GIL. -1 when a handler raised; KeyboardInterrupt is the default one's. In threads but the main one nothing happens.
cdef inline int check_signals() except -1 nogil:
    with gil:
        return PyErr_CheckSignals()
