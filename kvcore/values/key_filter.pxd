"""Which keys are asked for: their first bytes, a pattern, a range in the order of their bytes. Decided without the GIL.

Keys are text or bytes. Those of other types have no order of bytes that means anything, and are never asked for.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tilekv.kvcore.hashing.digest cimport KeyRef

cdef enum TokenKind:
    LITERAL = 0                 # these bytes
    ONE = 1                     # any character
    CLASS = 2                   # a character of some ranges, or of none of them
    STAR = 3                    # any number of characters

cdef struct Token:              # of a pattern
    TokenKind kind
    const uint8_t* data         # LITERAL
    uint64_t size
    const uint32_t* ranges      # CLASS: `size` pairs, first and last
    bint others                 # CLASS: a character outside of all


cdef class KeyFilter:
    """Immutable. Patterns are those of fnmatch.fnmatchcase: a character of text is a code point, and each byte that is not UTF-8
    is one by itself; of bytes it is a byte."""
    cdef int type               # of the keys; -1: text and bytes
    cdef KeyRef prefix, start, stop     # without data: whatever
    cdef bint text              # whether characters are those of UTF-8
    cdef bint patterned
    cdef Token* tokens
    cdef size_t n
    cdef list held              # what all of these lead into
    # key: its type is without the bit of a delete.
    cdef bint matches(self, const KeyRef* key) noexcept nogil
    cdef bint _matches_pattern(self, const uint8_t* data, uint64_t size) noexcept nogil
    cdef int _compile(self, list characters) except -1
    cdef int _add(self, TokenKind kind, bytes data, list ranges, bint others) except -1

# Of two keys, text first, then the order of their bytes.
cdef bint comes_before(const KeyRef* a, const KeyRef* b) noexcept nogil
