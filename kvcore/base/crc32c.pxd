"""CRC-32C. The header makes its tables in every module that has it: only those who compute sums cimport this."""

from libc.stdint cimport uint32_t

cdef extern from "base/crc32c.h" nogil:
    # CRC-32C (Castagnoli, reflected, RFC 3720 appendix B.4) of n bytes, continuing from `crc` (start with 0).
    # SSE4.2 or ARMv8 instructions where the machine has them, tables elsewhere: the same value everywhere.
    uint32_t tkv_crc32c(uint32_t crc, const void* data, size_t n)
