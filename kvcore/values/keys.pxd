"""Python keys to bytes, and back (docs/design.md 3).

In a store of `numbers` (Layout) an integer of any width is the key that the equal int is, and a float the key that the equal
Python float is; elsewhere a NumPy scalar is a key of its own datatype. A NaN keeps its bits, and is equal to no other.
"""

from libc.stdint cimport uint8_t

from tilekv.kvcore.hashing.digest cimport KeyRef

# A key by reference: `ref.data` leads into the object that key_cell() returned, or into `word`.
cdef struct KeyCell:
    KeyRef ref
    uint8_t word[8]

# Fills cell from a Python key; returns the object that owns the bytes. REQUIRES: it and `cell` live while cell.ref is used.
cdef object key_cell(object key, KeyCell* cell, bint numbers)
# The same for a look-up: what cannot be a key is not there, and then `cell.ref.data` is NULL. WrongTypeError for what no dict can
# be asked for.
cdef object asked_cell(object key, KeyCell* cell, bint numbers)
# The key in the form that gives it back.
cdef object load_key(const KeyRef* key, bint numbers)
# An array of numbers as (int64, uint64 or float64, the datatypes of its elements or None when they are all the array's); no
# array when float64 cannot hold them.
cdef object numbers_of(object array)
