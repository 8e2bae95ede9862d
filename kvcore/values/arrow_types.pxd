"""Arrow's types, by the format strings that stand for them: the dtype of each, and what it is called."""

from tilekv.kvcore.values.arrow cimport ArrowSchema

cdef str format_of(const ArrowSchema* schema, str what)
# The numpy.dtype of its elements as they are stored: numbers, times, intervals (which have fields), and "?" for bools, which are
# bits. None for other types, decimals too.
cdef object dtype_of(str format)
# The format of a dtype; None for one that Arrow lacks.
cdef bytes format_for(object dtype)
# Of a list of variable length, how many bytes each of its offsets has; else 0.
cdef int offset_bytes(str format) except -1
# The number behind the colon of a format.
cdef object size_in(str format, str what)
# As in `list<int32>`: for messages.
cdef str type_name(const ArrowSchema* schema)
cdef str field_name(const ArrowSchema* schema)
# All metadata of a field: (key, value) pairs of bytes.
cdef list metadata_pairs(const ArrowSchema* schema)
# What the metadata of a field say of `key`, or None.
cdef bytes metadata_of(const ArrowSchema* schema, bytes key)
