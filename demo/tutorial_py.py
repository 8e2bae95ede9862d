"""The Python program of TileDB's tutorial on key-value stores, as it stands but for the name of the package.

It makes the store my_kv in the working directory.
"""
# ruff: noqa: UP031 - formatted as in the tutorial

import tilekv as tiledb

array_name = "my_kv"


def create_array():
    ctx = tiledb.Ctx()
    schema = tiledb.KVSchema(ctx, attrs=[tiledb.Attr(ctx, name="a1", dtype=bytes)])
    tiledb.KV.create(ctx, array_name, schema)


def write_array():
    ctx = tiledb.Ctx()
    A = tiledb.KV(ctx, array_name)
    A["key_1"] = "1"
    A["key_2"] = "2"
    A["key_3"] = "3"
    A.flush()


def read_array():
    ctx = tiledb.Ctx()
    A = tiledb.KV(ctx, array_name)
    print("key_1: %s" % A["key_1"])
    print("key_2: %s" % A["key_2"])
    print("key_3: %s" % A["key_3"])


def iterate_array():
    ctx = tiledb.Ctx()
    A = tiledb.KV(ctx, array_name)
    for p in A:
        print("key: '%s', value: '%s'" % (p[0], p[1]))


create_array()
write_array()
read_array()
iterate_array()
