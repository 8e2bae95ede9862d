from collections.abc import Iterable

import numpy as np

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.values.arrow_import cimport import_cells
from tilekv.kvcore.values.arrow_stream cimport ArrowChunk, ArrowReader, is_arrow, open_arrow
from tilekv.kvcore.values.exact cimport is_masked, numpy_form
from tilekv.kvcore.values.input_cells cimport Cells, array_keys, fixed_cells, object_cells, spread_cells
from tilekv.kvcore.values.values cimport KIND_INT


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
    if form is not None and column is not None and column.valid:
        return [nullable_cells(given, form, column, what)]
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
            pieces.append(import_cells(chunk, &chunk.types.schema, &chunk.array, slice(0, chunk.array.length), column,
                                       numbers, what))
    objects = list(given)
    if column is not None and column.valid:
        missing = missing_of(given)
        if missing is not None:                                 # pandas' own types, without pyarrow
            objects = [None if none else value for value, none in zip(objects, missing.tolist())]
    return [object_cells(objects, numbers)]


cdef Cells nullable_cells(object given, object form, Column column, str what):
    """Of an attribute whose values may be null: what is missing of pandas, and what is masked of NumPy. A NaN in an array is a
    NaN."""
    cdef Cells cells = None
    cdef Py_ssize_t n
    missing = None
    if isinstance(form, np.ma.MaskedArray):
        missing = masked_of(form, what)
    elif form is not given:
        missing = missing_of(given)
    array = checked_array(form if missing is None else np.asarray(form), what)
    n = len(array)
    if missing is not None:
        if missing.dtype != bool or missing.shape != (n,):
            raise InvalidValueError(f"{what} does not say of each of its {n} rows whether it is missing")
        array = array[~missing]
        if form is not given and column.element == KIND_INT and column.dtype is not None and array.dtype.kind == "f":
            array = integers_of(array)
    found = column.array(array)
    if found is not None:
        cells = fixed_cells(found)
    elif array.dtype.kind == "T" and array.ndim == 1:
        return object_cells([text if isinstance(text, str) else None for text in array.tolist()])
    else:
        cells = object_cells(array.tolist() if array.dtype.kind in "SU" and array.ndim == 1 else list(array))
    return cells if missing is None else spread_cells(cells, np.flatnonzero(~missing), n, column.valid)


cdef object masked_of(object array, str what):
    """Which rows are masked: all of a row, or nothing of it. None: none is, or they are of records, which no attribute takes."""
    cdef tuple within = tuple(range(1, array.ndim))
    mask = np.ma.getmaskarray(array)
    if array.ndim == 0 or mask.dtype != bool:
        return None
    rows = mask.any(axis=within)
    if (rows & ~mask.all(axis=within)).any():
        raise InvalidValueError(f"{what} has rows of which a part is masked: a value is null as a whole")
    return rows if rows.any() else None


cdef object integers_of(object reals):
    """pandas makes floats of integers when one is missing: as integers again, when all are whole and a float tells them apart."""
    if (np.abs(reals) <= 2.0**53).all() and (np.trunc(reals) == reals).all():
        return reals.astype(np.int64)
    return reals


cdef list texts_of(object given, str what):
    """NumPy's strings of variable width, which may have a null of any kind."""
    texts = given.tolist()
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise null_at(what, row)
    return texts


cdef object null_at(str what, object row):
    return InvalidValueError(f"{what} has a null, at row {row}: fill them, leave their rows out, or make the attribute "
                             "nullable")


cdef int check_missing(object given, str what) except -1:
    """Of pandas, where a NaN or NaT is what stands for a null."""
    missing = missing_of(given)
    if missing is not None:
        raise null_at(what, missing.argmax())
    return 0


cdef object missing_of(object given):
    """Which rows are null, as a bool array; None when none is, or for what is not pandas'."""
    missing = getattr(given, "isna", None)
    if missing is None:
        return None
    try:
        missing = np.asarray(missing())
    except NotImplementedError:                                 # of a MultiIndex, whose tuples are refused as such
        return None
    return missing if missing.any() else None


cdef object checked_array(object array, str what):
    if array.ndim == 0:
        raise WrongTypeError(f"{what} must be a list or an array, not an array of no dimension")
    if is_masked(array):
        raise InvalidValueError(f"{what} has masked values: fill them, or leave their rows out")
    return array
