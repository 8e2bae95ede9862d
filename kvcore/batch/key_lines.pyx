"""Keys as bytes to be printed, with no object for a key whose bytes stand there as they are."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from tilekv.errors import InvalidValueError

from tilekv.kvcore.base.wire cimport Out, out_bytes, out_free, out_room
from tilekv.kvcore.batch.key_scan cimport FoundKeys
from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.hashing.digest cimport KeyRef
from tilekv.kvcore.values.keys cimport load_key


cdef struct Form:
    const uint8_t* before
    size_t before_bytes
    const uint8_t* after
    size_t after_bytes
    const uint8_t* plain        # 256, not 0 for a byte that stands for itself
    bint blobs


def key_lines(FoundKeys found not None, bytes before not None, bytes after not None, bytes plain not None, bint blobs,
              other not None):
    """What is printed of the keys.

    Parameters
    ----------
    found : FoundKeys
        Keys, in the order in which they are printed.
    before, after : bytes
        What stands before and behind a key.
    plain : bytes
        256 of them, not 0 for each byte that stands for itself. A key of which one does not is `other`.
    blobs : bool
        Whether keys of bytes are printed so too; else text alone, and all else is `other`.
    other : callable
        Gives, as bytes, what is printed of a list of keys, in their order, with what stands before and behind each.

    Returns
    -------
    bytes
    """
    cdef Form form
    cdef Out out
    cdef KeyRef key
    cdef size_t i = 0
    cdef list odd
    cdef bytes text
    if len(plain) != 256:
        raise InvalidValueError(f"plain has a byte for each of 256, not {len(plain)}")
    form.before = <const uint8_t*>PyBytes_AS_STRING(before)
    form.before_bytes = PyBytes_GET_SIZE(before)
    form.after = <const uint8_t*>PyBytes_AS_STRING(after)
    form.after_bytes = PyBytes_GET_SIZE(after)
    form.plain = <const uint8_t*>PyBytes_AS_STRING(plain)
    form.blobs = blobs
    memset(&out, 0, sizeof(out))
    try:
        while i < found.n:
            with nogil:
                i = print_plain(found, i, &form, &out)
            odd = []
            while i < found.n:
                found_key(found, i, &key)
                if is_plain(&key, &form):
                    break
                odd.append(load_key(&key, found.numbers))
                i += 1
            if odd:
                text = other(odd)
                if out_bytes(&out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) < 0:
                    raise MemoryError
        return PyBytes_FromStringAndSize(<const char*>out.data, out.size)
    finally:
        out_free(&out)


cdef inline void found_key(FoundKeys found, size_t i, KeyRef* key) noexcept nogil:
    cdef const uint64_t* ends = <const uint64_t*>found.ends.data
    cdef uint64_t start = ends[i - 1] if i else 0
    key.type = found.types.data[i]
    key.data = found.data.data + start
    key.size = ends[i] - start


cdef inline bint is_plain(const KeyRef* key, const Form* form) noexcept nogil:
    cdef uint64_t i
    if key.type != CHAR and not (form.blobs and key.type == BLOB):
        return False
    for i in range(key.size):
        if not form.plain[key.data[i]]:
            return False
    return True


cdef size_t print_plain(FoundKeys found, size_t first, const Form* form, Out* out) except? -1 nogil:
    """From key `first` on, as long as they are plain. Returns the first that is not, or how many there are."""
    cdef KeyRef key
    cdef uint8_t* at
    cdef size_t size, i = first
    while i < found.n:
        found_key(found, i, &key)
        if not is_plain(&key, form):
            break
        size = form.before_bytes + key.size + form.after_bytes
        at = out_room(out, size)
        if at == NULL:
            raise MemoryError
        memcpy(at, form.before, form.before_bytes)
        memcpy(at + form.before_bytes, key.data, key.size)
        memcpy(at + size - form.after_bytes, form.after, form.after_bytes)
        out.size += size
        i += 1
    return i
