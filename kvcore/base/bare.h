/* Classes whose objects only their own module makes: an object without what it is made of would be read all the same.

   Cython makes its own by calling the C function, not the slot; elsewhere, as in subclasses, that would be NULL. */
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
