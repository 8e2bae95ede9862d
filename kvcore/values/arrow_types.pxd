"""The types of Arrow arrays in words."""

from tilekv.kvcore.values.arrow_export cimport ArrowSchema

cdef str format_of(const ArrowSchema* schema, str what)
# The number behind the colon of a format.
cdef object size_in(str format, str what)
# As in `list<int32>`: for messages.
cdef str type_name(const ArrowSchema* schema)
# What the metadata of a field say of `key`, or None.
cdef bytes metadata_of(const ArrowSchema* schema, bytes key)
