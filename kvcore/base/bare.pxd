"""Classes that Python cannot make an object of: cls(), cls.__new__(cls), copying and unpickling are a TypeError."""

cdef extern from "base/bare.h":
    # Called by the class's module, which alone makes its objects from then on. The class is final.
    int tkv_refuse_bare(object cls) except -1
