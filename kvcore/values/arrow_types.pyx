from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

import numpy as np

from tilekv.errors import InvalidValueError

cdef enum:
    MOST_NAMED = 4              # fields of a struct that are named
    MOST_DEEP = 8               # types within types

# By format: in words, and the dtype of an element. A format of a time of day has none: NumPy has no such type.
_TYPES = {format: (name, None if dtype is None else np.dtype(dtype)) for format, name, dtype in [
    ("n", "null", None), ("b", "bool", "?"),
    ("c", "int8", "<i1"), ("s", "int16", "<i2"), ("i", "int32", "<i4"), ("l", "int64", "<i8"),
    ("C", "uint8", "<u1"), ("S", "uint16", "<u2"), ("I", "uint32", "<u4"), ("L", "uint64", "<u8"),
    ("e", "float16", "<f2"), ("f", "float32", "<f4"), ("g", "float64", "<f8"),
    ("z", "binary", None), ("Z", "large_binary", None), ("vz", "binary_view", None),
    ("u", "string", None), ("U", "large_string", None), ("vu", "string_view", None),
    ("tdD", "date32", "<i4"), ("tdm", "date64", "<M8[ms]"),
    ("tss:", "timestamp[s]", "<M8[s]"), ("tsm:", "timestamp[ms]", "<M8[ms]"), ("tsu:", "timestamp[us]", "<M8[us]"),
    ("tsn:", "timestamp[ns]", "<M8[ns]"),                       # behind the colon stands a time zone
    ("tts", "time32[s]", None), ("ttm", "time32[ms]", None), ("ttu", "time64[us]", None), ("ttn", "time64[ns]", None),
    ("tDs", "duration[s]", "<m8[s]"), ("tDm", "duration[ms]", "<m8[ms]"), ("tDu", "duration[us]", "<m8[us]"),
    ("tDn", "duration[ns]", "<m8[ns]"),
    ("tiM", "month_interval", None), ("tiD", "day_time_interval", [("days", "<i4"), ("parts", "<i4")]),
    ("tin", "month_day_nano_interval", [("months", "<i4"), ("days", "<i4"), ("parts", "<i8")])]}
# Dates are days as integers, or times that a timestamp holds as well.
_FORMATS = {dtype: format.encode() for format, (_, dtype) in _TYPES.items()
            if dtype is not None and dtype.names is None and format not in ("tdD", "tdm")}
_LISTS = {"+l": ("list", 4), "+L": ("large_list", 8), "+vl": ("list_view", 4), "+vL": ("large_list_view", 8)}
_FIELDS = {"+s": "struct", "+ud": "dense_union", "+us": "sparse_union"}


cdef str format_of(const ArrowSchema* schema, str what):
    if schema.format == NULL:
        raise InvalidValueError(f"{what}: the Arrow array has no type")
    return bytes(schema.format).decode("utf-8", "replace")


cdef object dtype_of(str format):
    _, dtype = _TYPES.get(format) or _TYPES.get(format[:4], (None, None))
    return dtype


cdef bytes format_for(object dtype):
    return _FORMATS.get(dtype)


cdef int offset_bytes(str format) except -1:
    _, size = _LISTS.get(format, (None, 0))
    return size


cdef object size_in(str format, str what):
    text = format.partition(":")[2]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidValueError(f"{what}: Arrow has no type {format!r}")
    return int(text)


cdef str type_name(const ArrowSchema* schema):
    return named(schema, 0)


cdef str named(const ArrowSchema* schema, int depth):
    cdef int64_t i
    cdef list inner
    if schema == NULL or schema.format == NULL:
        return "no type"
    if depth > MOST_DEEP:
        return "..."
    format = bytes(schema.format).decode("utf-8", "replace")
    extension = metadata_of(schema, b"ARROW:extension:name")
    if extension is not None:
        return f"extension<{extension.decode('utf-8', 'replace')}>"
    if schema.dictionary != NULL:
        return f"dictionary<values={named(schema.dictionary, depth + 1)}, indices={_TYPES.get(format, (format, None))[0]}>"
    if format in _TYPES:
        return _TYPES[format][0]
    word, _, size = format.partition(":")
    if format[:4] in _TYPES:
        return f"{_TYPES[format[:4]][0].removesuffix(']')}, tz={size}]"
    if word == "w":
        return f"fixed_size_binary[{size}]"
    if word == "d":
        digits = [*size.split(","), "", "128"]
        return f"decimal{digits[2] or 128}({digits[0]}, {digits[1]})"
    inner = names_within(schema, depth)
    if word == "+w":
        return f"fixed_size_list<{', '.join(inner)}>[{size}]"
    if word in _LISTS:
        return f"{_LISTS[word][0]}<{', '.join(inner)}>"
    if word == "+r":
        return f"run_end_encoded<{', '.join(inner)}>"
    if word == "+m":
        return f"map<{', '.join(names_within(schema.children[0], depth + 1) if inner else inner)}>"
    if word not in _FIELDS:
        return f"of a type that Arrow does not have, {format!r}"
    inner = [f"{field_name(schema.children[i])}: {text}" for i, text in enumerate(inner)]
    return f"{_FIELDS[word]}<{', '.join(inner)}{', ...' if schema.n_children > MOST_NAMED else ''}>"


cdef list names_within(const ArrowSchema* schema, int depth):
    cdef int64_t i
    if schema == NULL or schema.children == NULL:
        return []
    return [named(schema.children[i], depth + 1) for i in range(min(schema.n_children, <int64_t>MOST_NAMED))]


cdef str field_name(const ArrowSchema* schema):
    if schema == NULL or schema.name == NULL:
        return ""
    return (<bytes>schema.name).decode("utf-8", "replace")


cdef bytes metadata_of(const ArrowSchema* schema, bytes key):
    for name, text in metadata_pairs(schema):
        if name == key:
            return text
    return None


cdef list metadata_pairs(const ArrowSchema* schema):
    cdef const char* at = schema.metadata
    cdef int32_t n = 0, size = 0, i
    cdef list pairs = []
    if at == NULL:
        return pairs
    memcpy(&n, at, 4)
    at += 4
    name = None
    for i in range(2 * n):
        memcpy(&size, at, 4)
        if size < 0:
            return pairs
        text = at[4:4 + size]
        at += 4 + size
        if i % 2:
            pairs.append((name, text))
        name = text
    return pairs
