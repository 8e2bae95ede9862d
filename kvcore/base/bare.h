/* Classes whose objects only their own module makes. cls.__new__(cls) would give an object whose C fields are empty, and methods
   read those unchecked.

   The slot tp_new is emptied. The module itself calls the C function behind it, which stays; a subclass would inherit NULL. */
#ifndef TKV_BARE_H
#define TKV_BARE_H

#include <Python.h>

static int tkv_refuse_bare(PyObject *cls)
{
    PyTypeObject *type = (PyTypeObject *)cls;
    type->tp_new = NULL;
    type->tp_vectorcall = NULL;
    type->tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
    if (PyDict_DelItemString(type->tp_dict, "__new__") < 0)
        return -1;
    PyType_Modified(type);
    return 0;
}

#endif
