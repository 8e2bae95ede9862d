cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int64_t

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from tilekv.errors import InvalidValueError, WrongTypeError

from tilekv.kvcore.base.bare cimport tkv_refuse_bare
from tilekv.kvcore.values.arrow_types cimport format_of


cdef bint is_arrow(object given) except -1:
    return producer_of(given) is not None and not isinstance(given, Mapping)    # a Store shows its rows, and stands for its keys


cdef object producer_of(object given):
    """What shows it as Arrow: itself, or the array of pandas' Index, and of pandas 2's Series; None when nothing does."""
    if isinstance(given, type):                                 # its instances may: it has their methods
        return None
    if hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__"):
        return given
    try:
        array = getattr(given, "array", None)
    except ValueError:                                          # of a MultiIndex
        array = None
    for form in (given, array):
        if hasattr(form, "__arrow_array__") and find_spec("pyarrow") is not None:
            return form
    return None


cdef object table_of(object given):
    found = given
    for name in ("scanner", "to_reader", "collect"):
        if not is_arrow(found) and hasattr(found, name):
            found = getattr(found, name)()
    if not is_arrow(found):
        raise WrongTypeError("with key= put_many takes a table that has __arrow_c_stream__ or __arrow_c_array__, or a dict of "
                             f"columns, not {type(given).__name__}")
    return found


cdef dict frame_columns(object table):
    """As an Arrow table, objects would be of a type that fits the first or some of them: times are cut, text becomes bytes, and
    those of polars are their addresses in memory."""
    pandas = sys.modules.get("pandas")
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(table, polars.DataFrame):
        return {column.name: column for column in table.get_columns()}
    if pandas is None or not isinstance(table, pandas.DataFrame):
        return None
    names = list(map(str, table.columns))
    columns = [table.iloc[:, i] for i in range(len(names))]
    if not isinstance(table.index, pandas.RangeIndex):          # which counts rows, whatever its name is
        for level, name in enumerate(table.index.names):
            names.append(f"__index_level_{level}__" if name is None else str(name))
            columns.append(table.index.get_level_values(level))
    check_distinct(names)
    return dict(zip(names, columns))


cdef int check_distinct(list names) except -1:
    if len(set(names)) != len(names):
        raise InvalidValueError(f"the table has columns of one name: {', '.join(map(repr, names))}")
    return 0


@cython.final
cdef class ArrowTypes:
    def __dealloc__(self):
        if self.schema.release != NULL:
            self.schema.release(&self.schema)


@cython.final
cdef class ArrowChunk:
    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


@cython.final
cdef class ArrowReader:
    def __dealloc__(self):
        if self.stream.release != NULL:
            self.stream.release(&self.stream)

    cdef ArrowChunk next(self):
        cdef ArrowChunk chunk = self.only
        cdef int status
        if self.stream.release == NULL:
            self.only = None
            return chunk
        chunk = ArrowChunk.__new__(ArrowChunk)
        with nogil:
            status = self.stream.get_next(&self.stream, &chunk.array)
        if status != 0:
            chunk.array.release = NULL
            raise_stream(self, status)
        if chunk.array.release == NULL:
            return None
        chunk.types = self.types
        return chunk


cdef int raise_stream(ArrowReader reader, int status) except -1:
    cdef const char* text = reader.stream.get_last_error(&reader.stream)
    said = f"error {status}" if text == NULL else (<bytes>text).decode("utf-8", "replace")
    raise InvalidValueError(f"the Arrow stream failed: {said}")


cdef void* taken(object given, object capsule, const char* name) except NULL:
    if not PyCapsule_IsValid(capsule, name):
        raise WrongTypeError(f"the Arrow protocol of {type(given).__name__} did not give a capsule of {name.decode()}")
    return PyCapsule_GetPointer(capsule, name)


cdef object produced(object given, object make):
    try:
        return make()
    except (ValueError, TypeError, OverflowError, NotImplementedError) as error:    # pyarrow's own are these too
        raise InvalidValueError(f"{type(given).__name__} cannot be shown as Arrow: {error}") from error


cdef ArrowReader open_arrow(object given):
    """What a consumer takes out of a capsule is marked as released there."""
    cdef ArrowReader reader = ArrowReader.__new__(ArrowReader)
    cdef ArrowArrayStream* stream
    cdef ArrowSchema* schema
    cdef ArrowArray* array
    cdef int status
    reader.types = ArrowTypes.__new__(ArrowTypes)
    given = producer_of(given)
    if not hasattr(given, "__arrow_c_stream__") and not hasattr(given, "__arrow_c_array__"):
        given = produced(given, given.__arrow_array__)
    if hasattr(given, "__arrow_c_stream__"):
        capsule = produced(given, given.__arrow_c_stream__)
        stream = <ArrowArrayStream*>taken(given, capsule, "arrow_array_stream")
        if stream.release == NULL:
            raise InvalidValueError("this Arrow stream was consumed before: ask its producer for another")
        reader.stream = stream[0]
        stream.release = NULL
        with nogil:
            status = reader.stream.get_schema(&reader.stream, &reader.types.schema)
        if status != 0:
            reader.types.schema.release = NULL
            raise_stream(reader, status)
        return reader
    described, capsule = produced(given, given.__arrow_c_array__)
    schema = <ArrowSchema*>taken(given, described, "arrow_schema")
    array = <ArrowArray*>taken(given, capsule, "arrow_array")
    if schema.release == NULL or array.release == NULL:
        raise InvalidValueError("this Arrow array was consumed before: ask its producer for another")
    reader.only = ArrowChunk.__new__(ArrowChunk)
    reader.types.schema = schema[0]
    schema.release = NULL
    reader.only.array = array[0]
    array.release = NULL
    reader.only.types = reader.types
    return reader


cdef list table_names(ArrowReader reader):
    cdef const ArrowSchema* schema = &reader.types.schema
    cdef int64_t i
    if format_of(schema, "the table") != "+s":
        raise WrongTypeError("with key= put_many takes an Arrow table, not a single column")
    if schema.n_children < 0 or schema.n_children > 0 and schema.children == NULL:
        raise InvalidValueError("the table: the Arrow array does not fit its type")
    for i in range(schema.n_children):
        if schema.children[i] == NULL:
            raise InvalidValueError(f"the table: column {i} of the Arrow array has no type")
    names = [(<bytes>schema.children[i].name).decode("utf-8", "replace") if schema.children[i].name != NULL else ""
             for i in range(schema.n_children)]
    check_distinct(names)
    return names


tkv_refuse_bare(ArrowTypes)
tkv_refuse_bare(ArrowChunk)
tkv_refuse_bare(ArrowReader)
