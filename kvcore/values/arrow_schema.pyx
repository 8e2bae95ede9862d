"""The types of a table as plain Python objects, which can be kept as JSON, and those as an Arrow schema again.

A tree is a dict of a field: ``name``, ``format`` (the string of the C data interface), ``type`` (the same in words), and where
there are any ``flags``, ``metadata`` (what of it is text), ``children`` and ``dictionary``.
"""

cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport int64_t

from tilekv.errors import InvalidValueError, WrongTypeError, shown

from tilekv.kvcore.values.arrow cimport ArrowSchema
from tilekv.kvcore.values.arrow_export cimport Node, described, schema_capsule, stream_capsule, type_node
from tilekv.kvcore.values.arrow_stream cimport ArrowReader, is_arrow, open_arrow
from tilekv.kvcore.values.arrow_types cimport field_name, format_of, metadata_pairs, type_name

cdef enum:
    MOST_DEEP = 32              # types within types
    MOST_FIELDS = 1 << 16       # of one type


def arrow_tree(given):
    """The tree of what has ``__arrow_c_schema__``, or of a stream, which is asked for and not read.

    WrongTypeError for anything else, InvalidValueError for a schema that is none.
    """
    cdef ArrowReader reader
    hook = getattr(given, "__arrow_c_schema__", None)
    if hook is not None:
        capsule = hook()
        if not PyCapsule_IsValid(capsule, "arrow_schema"):
            raise WrongTypeError(f"the Arrow protocol of {type(given).__name__} did not give a capsule of arrow_schema")
        return tree_of(<ArrowSchema*>PyCapsule_GetPointer(capsule, "arrow_schema"), 0)
    if not is_arrow(given):
        raise WrongTypeError(f"{type(given).__name__} has no Arrow schema")
    reader = open_arrow(given)
    return tree_of(&reader.types.schema, 0)


cdef dict tree_of(const ArrowSchema* schema, int depth):
    cdef int64_t i
    if schema == NULL or schema.release == NULL or depth > MOST_DEEP or not 0 <= schema.n_children <= MOST_FIELDS \
            or schema.n_children and schema.children == NULL:
        raise InvalidValueError("this is no Arrow schema, or one of too many types within types")
    tree = {"name": field_name(schema), "format": format_of(schema, "the schema"), "type": type_name(schema)}
    if schema.flags:
        tree["flags"] = schema.flags
    metadata = {}
    for name, value in metadata_pairs(schema):
        try:
            metadata[name.decode()] = value.decode()
        except UnicodeDecodeError:
            continue
    if metadata:
        tree["metadata"] = metadata
    if schema.n_children:
        tree["children"] = [tree_of(schema.children[i], depth + 1) for i in range(schema.n_children)]
    if schema.dictionary != NULL:
        tree["dictionary"] = tree_of(schema.dictionary, depth + 1)
    return tree


cdef Node node_of(object tree, int depth):
    """Raises InvalidValueError for what is no tree: it may have been in a file."""
    if depth > MOST_DEEP or not isinstance(tree, dict):
        raise InvalidValueError("a type is no dict, or too many types are within types")
    name, format, flags = tree.get("name"), tree.get("format"), tree.get("flags", 0)
    metadata, children = tree.get("metadata", {}), tree.get("children", [])
    if not (isinstance(name, str) and isinstance(format, str) and type(flags) is int and 0 <= flags < 8
            and isinstance(metadata, dict) and isinstance(children, list) and "\0" not in name + format):
        raise InvalidValueError(f"no Arrow type is called {shown(name)}, of {shown(format)}")
    dictionary = None if tree.get("dictionary") is None else node_of(tree["dictionary"], depth + 1)
    node = type_node(name, format.encode(), flags, [node_of(child, depth + 1) for child in children], dictionary)
    pairs = [(key.encode(), value.encode()) for key, value in metadata.items() if isinstance(value, str)]
    return described(node, pairs) if pairs else node


@cython.final
cdef class ArrowTree:
    """A tree as an Arrow schema, and as a stream of it without rows.

    InvalidValueError for what is no tree.
    """
    cdef Node _node

    def __cinit__(self, tree):
        self._node = node_of(tree, 0)

    def __arrow_c_schema__(self):
        return schema_capsule(self._node)

    def __arrow_c_stream__(self, requested_schema=None):
        return stream_capsule(self._node, iter(()))
