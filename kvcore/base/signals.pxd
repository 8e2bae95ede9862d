"""Ctrl-C in long calls. Python runs signal handlers between bytecodes, and a call of millions of rows is one bytecode: so it
looks for signals itself, every so many rows.

A handler is Python code, and may use the very store that is at work: look only where Python code of the caller could run anyway.
"""

from cpython.exc cimport PyErr_CheckSignals

cdef enum:
    ROWS = 1 << 14              # between two looks while the GIL is held: some milliseconds
    CELLS = 1 << 17             # without it: some 10 ms, since it may have to be waited for


# Without the GIL. -1 when a handler raised; KeyboardInterrupt is the default one's. In threads but the main one nothing happens.
cdef inline int check_signals() except -1 nogil:
    with gil:
        return PyErr_CheckSignals()
