"""Attributes and schemas: what is allowed, equality, and the schema file there and back."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilekv
from tilekv import schema as module
from tilekv.errors import CorruptionError, FormatError, InvalidValueError, WrongTypeError
from tilekv.filters import (
    BitWidthReductionFilter,
    ByteShuffleFilter,
    Bzip2Filter,
    DoubleDeltaFilter,
    Filter,
    FilterList,
    GzipFilter,
    LZ4Filter,
    NoOpFilter,
    RleFilter,
    UnknownFilter,
    ZstdFilter,
)
from tilekv.kvcore.base.crc32c import crc32c
from tilekv.schema import VALUE_FILTERS, Attr, Schema
from tilekv.schemafile import write_schema

ID = "f" * 32


def again(schema: Schema) -> Schema:
    return Schema._from_file(schema.to_file(), schema.describe(ID, "0.1.0"))


@pytest.mark.parametrize(
    ("code", "word", "dtypes"),
    [
        (4, "bytes", [bytes, np.bytes_, "S"]),
        (12, "str", [str, np.str_, "U"]),
        (1, "int64", [int, np.int64, "q"]),
        (3, "float64", [float, "f8"]),
        (41, "bool", [bool, np.bool_]),
        (0, "int32", ["<i4", ">i4", np.int32]),
        (6, "uint8", [np.dtype("uint8")]),
        (2, "float32", ["f4"]),
        (25, "datetime64[ms]", ["M8[ms]", ">M8[ms]"]),
        (31, "timedelta64[h]", ["m8[h]"]),
    ],
)
def test_dtypes(code: int, word: str, dtypes: list[Any]) -> None:
    for dtype in [word, *dtypes]:
        one = Attr("a", dtype)
        assert (one.datatype, one.type_name) == (code, word)
        assert one.dtype == np.dtype(word)
        assert one.var is (code in (4, 12))
        assert one == Attr("a", one.dtype)
        assert one == eval(repr(one))


@pytest.mark.parametrize(
    "dtype",
    [
        *("float16", "longdouble", "complex64", "S5", "U3", "O", "i4,i4", "M8", "m8[D]", "what"),
        *(None, object, dict, 5, "(2,3)i4"),
    ],
)
def test_refused_dtypes_name_the_attribute(dtype: Any) -> None:
    with pytest.raises(WrongTypeError, match="'price'"):
        Attr("price", dtype)


def test_a_context_anywhere() -> None:
    plain = Attr("a1", "int32")
    ctx = tilekv.Ctx()
    assert Attr(ctx, "a1", "int32") == plain
    assert Attr(ctx, name="a1", dtype="int32") == plain
    assert Attr("a1", "int32", None, False, None, None, ctx) == plain
    assert Attr(name="a1", dtype="int32", ctx=ctx) == plain
    assert Attr(ctx, "a", "int8", (2,), False, LZ4Filter()) == Attr(
        "a", np.int8, shape=2, filters=[LZ4Filter()]
    )


def test_what_tiledb_py_had_third() -> None:
    filters = FilterList([GzipFilter(2)])
    assert Attr("a", "int32", True) == Attr("a", "int32", var=True)
    assert Attr("a", "int32", True, filters) == Attr("a", "int32", var=True, filters=filters)
    assert Attr("a", "int32", False, filters) == Attr("a", "int32", filters=filters)
    assert Attr("a", "int32", False, None) == Attr("a", "int32")
    assert Attr("a", "int32", ("gzip", 2)) == Attr("a", "int32", filters=filters)


@pytest.mark.parametrize(
    ("compressor", "filters"),
    [
        (("zstd", 10), [ZstdFilter(10)]),
        (("gzip", -1), [GzipFilter()]),
        (("lz4", 3), [LZ4Filter()]),
        (("rle", -1), [RleFilter()]),
        (("bzip2", 1), [Bzip2Filter(1)]),
        (("double-delta", -1), [DoubleDeltaFilter()]),
        (("blosc-zstd", 2), [ByteShuffleFilter(), ZstdFilter(2)]),
        (("blosc-zlib", 2), [ByteShuffleFilter(), GzipFilter(2)]),
        (("blosc-lz", 2), [ByteShuffleFilter(), LZ4Filter()]),
        ((None, -1), []),
    ],
)
def test_compressors(compressor: tuple[str | None, int], filters: list[Filter]) -> None:
    attr = Attr("a", "int32", compressor=compressor)
    assert attr == Attr("a", "int32", filters=filters)
    assert Attr("a", "int32").set_compressor(compressor) == attr
    for wrong, error in (
        ("zstd", WrongTypeError),
        (("snappy", 1), InvalidValueError),
        (("zstd", 99), InvalidValueError),
        (("zstd", "9"), WrongTypeError),
    ):
        with pytest.raises(error):
            Attr("a", compressor=wrong)
    with pytest.raises(InvalidValueError, match="filters and a compressor"):
        Attr("a", "int32", filters=filters, compressor=compressor)


def test_an_attribute_is_fixed_once_it_is_in_a_schema() -> None:
    one = Attr("a", "int32")
    schema = Schema([one])
    assert one.set_filter_list([LZ4Filter()]) is one
    assert one.filters == FilterList([LZ4Filter()])
    assert schema.attrs[0].filters == VALUE_FILTERS
    for call in (
        lambda: schema.attrs[0].set_filter_list([]),
        lambda: schema.attrs[0].set_compressor(("lz4", 1)),
    ):
        with pytest.raises(InvalidValueError, match="belongs to a schema"):
            call()
    with pytest.raises(InvalidValueError, match="DoubleDelta"):
        Attr("a", "float32").set_compressor(("double-delta", -1))


def test_words_of_tiledb_py(capsys: pytest.CaptureFixture[str]) -> None:
    var, many, one = Attr("v", str), Attr("m", "int32", shape=(2, 3)), Attr()
    assert [each.isvar for each in (var, many, one)] == [True, False, False]
    assert [each.ncells for each in (var, many, one)] == [0xFFFFFFFF, 6, 1]
    assert [each.isanon for each in (var, many, one)] == [False, False, True]
    assert one == Attr("", "float64")
    one.dump()
    many.dump()
    assert capsys.readouterr().out.splitlines()[1::5] == ["- Name: <anonymous>", "- Name: m"]


def test_an_attribute_without_a_name(tmp_path: Path) -> None:
    schema = Schema([Attr("", bytes), Attr("n", "int32")])
    with tilekv.open(tmp_path / "store", "x", schema=schema) as db:
        db.update({n: (b"value %d" % n, n) for n in range(50)})
    (fragment,) = (tmp_path / "store").glob("__*_*_*/")
    assert (fragment / "__attr_var.tdb").exists()
    with tilekv.open(tmp_path / "store", "a") as db:
        assert db.schema == schema
        assert db[7] == {"": b"value 7", "n": 7}
        assert db.get_many([1]) == [{"": b"value 1", "n": 1}]
    assert tilekv.verify(tmp_path / "store") == []
    (tmp_path / "store" / "__tilekv.json").unlink()
    tilekv.salvage(tmp_path / "store", tmp_path / "copy")
    with tilekv.open(tmp_path / "copy") as db:
        assert db.schema == schema
        assert db[7] == {"": b"value 7", "n": 7}
    with pytest.raises(InvalidValueError, match="'' and ''"):
        Schema([Attr(), Attr()])


@pytest.mark.parametrize(
    "name",
    [".", "..", "a/b", "a\\b", "a\0", "__a", "__key", "x" * 241, "é" * 121, "\udc80"],
)
def test_refused_names(name: str) -> None:
    with pytest.raises(InvalidValueError, match="name"):
        Attr(name, bytes)


@pytest.mark.parametrize("name", ["a b", "größe", "a.b", '"', "_a", "...", "é" * 120, "a_var"])
def test_allowed_names(name: str) -> None:
    assert again(Schema([Attr(name, bytes)])).attrs[0].name == name


def test_missing_and_wrong_arguments() -> None:
    calls: list[Any] = [
        lambda: Attr(None, bytes),  # type: ignore[arg-type]
        lambda: Attr(b"a", bytes),  # type: ignore[arg-type]
        lambda: Attr("a", None),
        lambda: Attr("a", bytes, var=1),  # type: ignore[call-overload]
        lambda: Attr("a", "int8", shape=2.5),  # type: ignore[call-overload]
        lambda: Attr("a", "int8", shape=(True,)),
        lambda: Attr("a", "int8", filters="zstd"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(WrongTypeError):
            call()
    with pytest.raises(TypeError):
        Attr("a", bytes, level=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("shape", [0, (3, 0), -1, (2**31,), (2**16, 2**16)])
def test_refused_shapes(shape: Any) -> None:
    with pytest.raises(InvalidValueError, match="shape"):
        Attr("a", "uint8", shape=shape)


def test_shape_and_any_length_exclude_one_another() -> None:
    for dtype, var in ((bytes, False), (str, False), ("int32", True)):
        with pytest.raises(InvalidValueError, match="both"):
            Attr("a", dtype, shape=(3,), var=var)
    assert Attr("a", bytes, var=True) == Attr("a", bytes)
    assert Attr("a", "int8", shape=()) == Attr("a", "int8")
    assert Attr("a", "int8", shape=1) != Attr("a", "int8")


@pytest.mark.parametrize(
    "attrs",
    [
        [],
        [Attr("a", bytes), Attr("a", bytes)],
        [Attr("a", bytes), Attr("A", "int8")],
        [Attr("straße", bytes), Attr("STRASSE", "int8")],
        [Attr("a", bytes), Attr("a_var", "int8")],
        [Attr("A_VAR", "int8"), Attr("a", "int8", var=True)],
        [Attr("a_var", "int8"), Attr("A", "int8", var=True)],
    ],
)
def test_attributes_that_would_share_a_file(attrs: list[Attr]) -> None:
    with pytest.raises(InvalidValueError, match="attribute"):
        Schema(attrs)


def test_a_fixed_attribute_leaves_the_var_name_free() -> None:
    assert len(Schema([Attr("a", "int8"), Attr("a_var", bytes)]).attrs) == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"digest": "sha1"}, InvalidValueError),
        ({"digest": "md5-lp64"}, InvalidValueError),
        ({"digest": None}, InvalidValueError),
        ({"capacity": 0}, InvalidValueError),
        ({"capacity": 2**28}, InvalidValueError),
        ({"capacity": 1.5}, WrongTypeError),
        ({"capacity": True}, WrongTypeError),
        ({"attrs": ["a"]}, WrongTypeError),
        ({"key_filters": 3}, WrongTypeError),
    ],
)
def test_refused_schemas(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Schema(**{"attrs": [Attr("a", bytes)]} | options)


def test_value_semantics() -> None:
    attrs = [Attr("a", "int8", shape=(2, 3)), Attr("b", str, filters=[]), Attr("c", int, var=True)]
    one = Schema(attrs, digest="md5", capacity=7, key_filters=ZstdFilter(3), offsets_filters=())
    assert one == Schema(iter(attrs), "md5", 7, FilterList(), FilterList(ZstdFilter(3)))
    assert hash(one) == hash(copy.deepcopy(one))
    assert one == pickle.loads(pickle.dumps(one)) == eval(repr(one), vars(module))
    for change in ("digest", "capacity", "key_filters", "offsets_filters"):
        other = copy.copy(one)
        object.__setattr__(other, change, getattr(Schema([Attr("a", "int8")]), change))
        assert one != other
    assert Schema(attrs[:2]) != Schema(attrs[1::-1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.capacity = 8  # type: ignore[misc]
    assert repr(Schema(Attr("a", bytes))) == (  # type: ignore[arg-type]
        "Schema([Attr('a', 'bytes')], digest='blake2b', capacity=1024)"
    )


def test_fields() -> None:
    schema = Schema([Attr("x", "float32", shape=(2, 3)), Attr("s", str), Attr("b", bool)])
    zstd = FilterList(ZstdFilter(1))._to_bytes(4096)
    assert schema.fields == (
        ("__key", 4, 0xFFFFFFFF, FilterList(LZ4Filter())._to_bytes(4096), 4096),
        ("x", 2, 6, zstd, 4096),
        ("s", 12, 0xFFFFFFFF, zstd, 4096),
        ("b", 41, 1, zstd, 4096),
        ("__key_type", 4, 1, FilterList()._to_bytes(4096), 4096),
    )
    assert schema.offsets_pipeline == FilterList(BitWidthReductionFilter(8192))._to_bytes(4096)
    assert schema.coords_pipeline == FilterList()._to_bytes(0x7FFFFFF8)


filters = st.lists(
    st.sampled_from([NoOpFilter(), LZ4Filter(), ZstdFilter(-3), BitWidthReductionFilter(64)]),
    max_size=3,
)
dtypes = st.sampled_from([bytes, str, bool, "i1", "u8", "f4", "M8[D]", "m8[as]"])


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    attrs = []
    for i in range(draw(st.integers(1, 4))):
        dtype: Any = draw(dtypes)
        shape = draw(st.none() | st.lists(st.integers(1, 5), max_size=3).map(tuple))
        var = draw(st.booleans()) and not shape
        shape = None if dtype in (bytes, str) else shape
        attrs.append(Attr(f"ä{i}", dtype, shape, var, draw(st.none() | filters)))
    digest = draw(st.sampled_from(["blake2b", "md5"]))
    return Schema(attrs, digest, draw(st.integers(1, 2**20)), draw(filters), draw(filters))


@given(schemas())
def test_file_there_and_back(schema: Schema) -> None:
    assert again(schema) == schema


def test_damage_is_found_by_the_checksum() -> None:
    schema = Schema([Attr("a", "int32"), Attr("b", str)])
    data, descriptor = schema.to_file(), schema.describe(ID, "0.1.0")
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError, match=r"__array_schema\.tdb"):
            Schema._from_file(bytes(flipped), descriptor, "__array_schema.tdb")


BASE = Schema([Attr("a", "int32", shape=(2,)), Attr("b", str)])


@pytest.mark.parametrize(
    "other",
    [
        Schema([Attr("a", "int32", shape=(2,))]),
        Schema([Attr("b", str), Attr("a", "int32", shape=(2,))]),
        Schema([Attr("a", "int32", shape=(3,)), Attr("b", str)]),
        Schema([Attr("a", "int32"), Attr("b", str)]),
        Schema([Attr("a", "uint32", shape=(2,)), Attr("b", str)]),
        Schema([Attr("a", "int32", shape=(2,)), Attr("b", bytes)]),
        Schema([Attr("a", "int32", shape=(2,)), Attr("c", str)]),
        Schema([Attr("a", "int32", var=True), Attr("b", str)]),
    ],
)
def test_descriptor_and_schema_file_must_agree(other: Schema) -> None:
    data = other.to_file()
    descriptor = dataclasses.replace(
        BASE.describe(ID, "0.1.0"), schema_crc32c=other.describe(ID, "").schema_crc32c
    )
    with pytest.raises(CorruptionError):
        Schema._from_file(data, descriptor)


def test_filters_where_tilekv_has_none() -> None:
    good = BASE.describe(ID, "0.1.0")
    fields = list(BASE.fields)
    fields[-1] = fields[-1]._replace(pipeline=fields[0].pipeline)
    for data in (
        write_schema(fields, 1024, BASE.offsets_pipeline, BASE.coords_pipeline),
        write_schema(BASE.fields, 1024, BASE.offsets_pipeline, fields[0].pipeline),
    ):
        with pytest.raises(CorruptionError, match="have filters"):
            Schema._from_file(data, dataclasses.replace(good, schema_crc32c=crc32c(data)))


def test_filters_that_tilekv_cannot_run() -> None:
    with pytest.raises(InvalidValueError, match="bitshuffle"):
        Attr("a", "int8", filters=UnknownFilter(8))


def test_unknown_digest_names_the_version() -> None:
    descriptor = dataclasses.replace(BASE.describe(ID, "7.0"), digest="sha3")
    with pytest.raises(FormatError, match=r"sha3.*tilekv 7\.0"):
        Schema._from_file(BASE.to_file(), descriptor)
