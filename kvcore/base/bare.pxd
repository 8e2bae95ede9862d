"""Classes that cannot be made bare: Python gets a TypeError for cls(), cls.__new__(cls) and what copies or unpickles."""

cdef extern from "base/bare.h":
    # Called by the class's module, which alone makes its objects from then on. The class is final.
    int tkv_refuse_bare(object cls) except -1
