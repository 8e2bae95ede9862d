from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

from tilekv.errors import InvalidValueError

cdef enum:
    MOST_NAMED = 4              # fields of a struct that are named
    MOST_DEEP = 8               # types within types

_NAMES = {"n": "null", "b": "bool", "c": "int8", "C": "uint8", "s": "int16", "S": "uint16", "i": "int32", "I": "uint32",
          "l": "int64", "L": "uint64", "e": "float16", "f": "float32", "g": "float64", "z": "binary", "Z": "large_binary",
          "vz": "binary_view", "u": "string", "U": "large_string", "vu": "string_view", "tdD": "date32", "tdm": "date64",
          "tts": "time32[s]", "ttm": "time32[ms]", "ttu": "time64[us]", "ttn": "time64[ns]", "tDs": "duration[s]",
          "tDm": "duration[ms]", "tDu": "duration[us]", "tDn": "duration[ns]", "tiM": "month_interval",
          "tiD": "day_time_interval", "tin": "month_day_nano_interval"}
_UNITS = {"tss:": "s", "tsm:": "ms", "tsu:": "us", "tsn:": "ns"}
_LISTS = {"+l": "list", "+L": "large_list", "+vl": "list_view", "+vL": "large_list_view"}
_FIELDS = {"+s": "struct", "+ud": "dense_union", "+us": "sparse_union"}


cdef str format_of(const ArrowSchema* schema, str what):
    if schema.format == NULL:
        raise InvalidValueError(f"{what}: the Arrow array has no type")
    return bytes(schema.format).decode("utf-8", "replace")


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
        return f"dictionary<values={named(schema.dictionary, depth + 1)}, indices={_NAMES.get(format, format)}>"
    if format in _NAMES:
        return _NAMES[format]
    word, _, size = format.partition(":")
    if format[:4] in _UNITS:
        return f"timestamp[{_UNITS[format[:4]]}, tz={size}]" if size else f"timestamp[{_UNITS[format[:4]]}]"
    if word == "w":
        return f"fixed_size_binary[{size}]"
    if word == "d":
        digits = [*size.split(","), "", "128"]
        return f"decimal{digits[2] or 128}({digits[0]}, {digits[1]})"
    inner = names_within(schema, depth)
    if word == "+w":
        return f"fixed_size_list<{', '.join(inner)}>[{size}]"
    if word in _LISTS:
        return f"{_LISTS[word]}<{', '.join(inner)}>"
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
    cdef const char* at = schema.metadata
    cdef int32_t pairs = 0, size = 0, i
    if at == NULL:
        return None
    memcpy(&pairs, at, 4)
    at += 4
    name = None
    for i in range(2 * pairs):
        memcpy(&size, at, 4)
        if size < 0:
            return None
        text = at[4:4 + size]
        at += 4 + size
        if i % 2 and name == key:
            return text
        name = text
    return None
