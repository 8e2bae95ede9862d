"""Numbers and times in an attribute's own type: exactly, or an error that names the attribute.

One thing is rounded: a float in a float32, which has no other way of being written in Python.
"""

cdef enum Zone:                 # of the times that one call gives for one attribute
    ZONE_UNKNOWN = 0
    ZONE_NONE = 1
    ZONE_AWARE = 2

cdef object wrong_type(str name, object dtype, object given)
cdef object out_of_range(str name, object dtype, object given)

# Whether a NumPy array has a masked element. Of records, whose fields are masked one by one, NumPy has no answer: none.
cdef bint is_masked(object given) except -1
# It has none: it would be stored as the number that the mask hides.
cdef int check_unmasked(object given, str what) except -1
# (bytes, None) of what holds bytes; (None, why not) of a memoryview that was released.
cdef tuple whole_bytes(object given)
# The array of what holds one, such as a pandas Series or Index of a NumPy dtype; None for anything else.
cdef object numpy_form(object given)
# What is in a list or an array: a tuple of objects, each of which may be of another type, or a NumPy array of numbers.
cdef object elements_of(object given, str what)

# A NumPy array in dtype: integers to any number that holds them, floats to floats, times to times of the same kind.
cdef object array_in(object given, object dtype, str name)
cdef object times_in(object given, object dtype, str name)
# A float, an integer, or anything else with a __float__ that equals it.
cdef int real_of(object value, object dtype, str name, double* real) except -1
# A date, time or duration of Python's, NumPy's or pandas' as the count of dtype's unit. A time with a zone is its instant.
cdef object time_of(object value, object dtype, str name, Zone* zone)
