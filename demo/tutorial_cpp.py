"""The C++ program of TileDB's tutorial on key-value stores, line for line in Python.

It makes the store my_map in the working directory.
"""

import tilekv as tiledb
from tilekv import TILEDB_READ, TILEDB_WRITE, Context, Map, MapIter

map_name = "my_map"


def create_map():
    ctx = tiledb.Context()
    schema = tiledb.MapSchema(ctx)
    a1 = tiledb.Attribute.create(ctx, "a1", int)
    a2 = tiledb.Attribute.create(ctx, "a2", float)
    schema.add_attributes(a1, a2)
    tiledb.Map.create(map_name, schema)


def write_map():
    ctx = tiledb.Context()

    # Open the map
    map = tiledb.Map(ctx, map_name, TILEDB_WRITE)

    attrs = ["a1", "a2"]

    # Add map items with [] operator
    map["key_1"][attrs] = (1, 1.1)
    map["key_2"][attrs] = (2, 2.1)
    map.flush()

    # Add map items through functions
    key3_item = Map.create_item(ctx, "key_3")
    key3_item.set("a1", 3)
    key3_item["a2"] = 3.1
    map.add_item(key3_item)
    map.flush()

    # Close the map
    map.close()


def read_map():
    ctx = Context()

    # Open the map
    map = tiledb.Map(ctx, map_name, TILEDB_READ)

    # Read the item values
    key1_a1 = map["key_1"]["a1"]
    key1_a2 = map["key_1"]["a2"]
    key2_item = map["key_2"]
    key2_a1 = key2_item["a1"]
    key3_item = map["key_3"]
    key3_a2 = key3_item["a2"]

    print("Simple read")
    print(f"key_1, a1: {key1_a1}")
    print(f"key_1, a2: {key1_a2}")
    print(f"key_2: a1: {key2_a1}")
    print(f"key_3: a2: {key3_a2}")


def iterate_map():
    ctx = Context()
    map = tiledb.Map(ctx, map_name, TILEDB_READ)

    print("\nIterating over map items")
    iter, end = MapIter(map), MapIter(map, True)
    while iter != end:
        key = iter.key(str)
        a1 = iter["a1"]
        a2 = iter["a2"]
        print(f"key: {key}, a1: {a1}, a2: {a2}")
        iter.advance()


create_map()
write_map()
read_map()
iterate_map()
