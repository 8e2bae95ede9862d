from collections.abc import Iterable

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.values.arrow_cells cimport arrow_cells
from tilekv.kvcore.values.arrow_stream cimport ArrowChunk, ArrowReader, is_arrow, open_arrow
from tilekv.kvcore.values.exact cimport numpy_form
from tilekv.kvcore.values.input_cells cimport Cells, array_keys, fixed_cells, object_cells


cdef int check_many(object given, str what) except -1:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) and not is_arrow(given):
        raise WrongTypeError(f"{what} must be a list or an array, not one {type(given).__name__}")
    if isinstance(given, memoryview):
        try:
            next(iter(given), None)
        except (TypeError, ValueError, NotImplementedError) as error:   # released, of several dimensions, or of records
            raise InvalidValueError(f"{what} cannot be read: {error}") from None
    elif getattr(given, "ndim", 1) == 0:
        raise WrongTypeError(f"{what} must be a list or an array, not an array of no dimension")
    return 0


cdef list cells_of(object given, Column column, bint numbers, str what):
    cdef ArrowReader reader
    cdef ArrowChunk chunk
    cdef Cells cells
    cdef list pieces = []
    check_many(given, what)
    form = numpy_form(given)
    if form is not None:
        if form is not given:
            check_missing(given, what)
        given = form
        array = checked_array(given, what)
        if column is None:
            cells = array_keys(array, numbers)
        else:
            array = column.array(array)
            cells = None if array is None else fixed_cells(array)
        if cells is not None:
            return [cells]
        if given.dtype.kind == "T" and given.ndim == 1:
            return [object_cells(texts_of(given, what), numbers)]
        return [object_cells(given.tolist() if given.dtype.kind in "SU" and given.ndim == 1 else list(given), numbers)]
    if is_arrow(given):
        reader = open_arrow(given)
        while True:
            chunk = reader.next()
            if chunk is None:
                return pieces
            pieces.append(arrow_cells(chunk, &chunk.types.schema, &chunk.array, slice(0, chunk.array.length), column,
                                      numbers, what))
    return [object_cells(list(given), numbers)]


cdef list texts_of(object given, str what):
    """NumPy's strings of variable width, which may have a null of any kind."""
    texts = given.tolist()
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise null_at(what, row)
    return texts


cdef object null_at(str what, object row):
    return InvalidValueError(f"{what} has a null, at row {row}: tilekv has no nulls, fill them or leave their rows out")


cdef int check_missing(object given, str what) except -1:
    """Of pandas, where a NaN or NaT is what stands for a null."""
    missing = getattr(given, "isna", None)
    if missing is not None:
        try:
            missing = np.asarray(missing())
        except NotImplementedError:                             # of a MultiIndex, whose tuples are refused as such
            return 0
        if missing.any():
            raise null_at(what, missing.argmax())
    return 0


cdef object checked_array(object array, str what):
    if array.ndim == 0:
        raise WrongTypeError(f"{what} must be a list or an array, not an array of no dimension")
    if np.ma.is_masked(array):
        raise InvalidValueError(f"{what} has masked values: fill them, or leave their rows out")
    return array
