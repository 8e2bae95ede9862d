"""TileDB's datatypes (docs/format.md 5): the one table. The numbers are on disk: never changed."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum Code:                 # those that tilekv itself gives to keys and metadata
    INT64 = 1
    FLOAT64 = 3
    CHAR = 4
    UINT8 = 6
    UINT64 = 10
    UTF8 = 12
    BLOB = 40
    BOOL = 41

# Bytes of one element, 0 for a code that is none.
cdef uint32_t element_bytes(uint8_t code) noexcept nogil
# Whether bit-width reduction and positive delta work on it; they copy others.
cdef bint is_integer(uint8_t code) noexcept nogil
# Whether it is an integer with a sign.
cdef bint is_signed(uint8_t code) noexcept nogil
