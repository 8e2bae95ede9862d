import numpy as np

# By code: TileDB's name, bytes of one element, NumPy's name for the dtype of the same values (None: it has none), kind. The kind
# is NumPy's letter where there is a dtype, else `text` or `bytes`.
ROWS = (
    ("INT32", 4, "int32", "i"),
    ("INT64", 8, "int64", "i"),
    ("FLOAT32", 4, "float32", "f"),
    ("FLOAT64", 8, "float64", "f"),
    ("CHAR", 1, None, "text"),
    ("INT8", 1, "int8", "i"),
    ("UINT8", 1, "uint8", "u"),
    ("INT16", 2, "int16", "i"),
    ("UINT16", 2, "uint16", "u"),
    ("UINT32", 4, "uint32", "u"),
    ("UINT64", 8, "uint64", "u"),
    ("STRING_ASCII", 1, None, "text"),
    ("STRING_UTF8", 1, None, "text"),
    ("STRING_UTF16", 2, None, "text"),
    ("STRING_UTF32", 4, None, "text"),
    ("STRING_UCS2", 2, None, "text"),
    ("STRING_UCS4", 4, None, "text"),
    ("ANY", 1, None, "text"),
    ("DATETIME_YEAR", 8, "datetime64[Y]", "M"),
    ("DATETIME_MONTH", 8, "datetime64[M]", "M"),
    ("DATETIME_WEEK", 8, "datetime64[W]", "M"),
    ("DATETIME_DAY", 8, "datetime64[D]", "M"),
    ("DATETIME_HR", 8, "datetime64[h]", "M"),
    ("DATETIME_MIN", 8, "datetime64[m]", "M"),
    ("DATETIME_SEC", 8, "datetime64[s]", "M"),
    ("DATETIME_MS", 8, "datetime64[ms]", "M"),
    ("DATETIME_US", 8, "datetime64[us]", "M"),
    ("DATETIME_NS", 8, "datetime64[ns]", "M"),
    ("DATETIME_PS", 8, "datetime64[ps]", "M"),
    ("DATETIME_FS", 8, "datetime64[fs]", "M"),
    ("DATETIME_AS", 8, "datetime64[as]", "M"),
    ("TIME_HR", 8, "timedelta64[h]", "m"),
    ("TIME_MIN", 8, "timedelta64[m]", "m"),
    ("TIME_SEC", 8, "timedelta64[s]", "m"),
    ("TIME_MS", 8, "timedelta64[ms]", "m"),
    ("TIME_US", 8, "timedelta64[us]", "m"),
    ("TIME_NS", 8, "timedelta64[ns]", "m"),
    ("TIME_PS", 8, "timedelta64[ps]", "m"),
    ("TIME_FS", 8, "timedelta64[fs]", "m"),
    ("TIME_AS", 8, "timedelta64[as]", "m"),
    ("BLOB", 1, None, "bytes"),
    ("BOOL", 1, "bool", "b"),
)
# What bit-width reduction and positive delta work on. Datetimes and times are integers too, but TileDB copies them in formats
# before 20.
INTEGER_KINDS = ("i", "u", "b", "bytes")
# NumPy's dtypes, native order, of the codes that have one; and the codes by the type strings of these.
DTYPES = {code: np.dtype(name) for code, (_, _, name, _) in enumerate(ROWS) if name is not None}
CODES = {dtype.str: code for code, dtype in DTYPES.items()}

# The same without the GIL: filled here, once. What is no code has no bytes.
cdef struct Row:
    uint8_t size
    bint integer
    bint signed

cdef Row rows[256]

for _code, (_, _size, _, _kind) in enumerate(ROWS):
    rows[<int>_code].size = _size
    rows[<int>_code].integer = _kind in INTEGER_KINDS
    rows[<int>_code].signed = _kind == "i"


cdef uint32_t element_bytes(uint8_t code) noexcept nogil:
    return rows[code].size


cdef bint is_integer(uint8_t code) noexcept nogil:
    return rows[code].integer


cdef bint is_signed(uint8_t code) noexcept nogil:
    return rows[code].signed
