"""CRC-32C for Python."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


def crc32c(data, uint32_t crc=0):
    """CRC-32C of `data`, continuing from `crc`: crc32c(b, crc32c(a)) == crc32c(a + b).

    Castagnoli's polynomial, reflected, as RFC 3720 appendix B.4 has it. `data` is any C-contiguous buffer. OverflowError when
    `crc` is not a 32-bit unsigned integer.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = tkv_crc32c(crc, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc
