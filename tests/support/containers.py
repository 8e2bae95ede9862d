"""The same values in every container: of Python, NumPy, pandas, pyarrow and polars."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from exactness import NAT

Made = dict[str, Callable[[], Any]]
NOT_OF_POLARS = ["float16", "datetime64[s]", "timedelta64[s]"]


def of_array(array: np.ndarray[Any, Any]) -> Made:
    """One column of numbers, bools or times of one type."""
    found: Made = {
        "py scalars": lambda: list(array),
        "py tuple": lambda: tuple(array),
        "py generator": lambda: iter(list(array)),
        "py no dimension": lambda: [np.array(each, array.dtype) for each in array],
        "np array": lambda: array,
        "np other order": lambda: (
            array.astype(array.dtype.newbyteorder(">")) if same(array) else array
        ),
        "np strides": lambda: np.repeat(array, 2)[::2],
        "np backwards": lambda: array[::-1].copy()[::-1],
        "np masked": lambda: np.ma.masked_array(array, np.zeros(len(array), bool)),
        "np objects": lambda: objects(list(array)),
    }
    kind, size = array.dtype.kind, array.dtype.itemsize
    unit = np.datetime_data(array.dtype)[0] if kind in "mM" else ""
    few = unit != "D" or bool((abs(array.view(np.int64)) < 2**31).all())
    if kind in "biu":
        found["py objects"] = array.tolist
    if (kind in "biuf" and size <= 8) or unit in ("s", "ms", "us", "ns"):
        found |= {
            "pd Series": lambda: pd.Series(array),
            "pd slice": lambda: pd.Series(np.repeat(array, 2))[::2],
            "pd objects": lambda: pd.Series(list(array), dtype=object),
            "pa array": lambda: pa.array(array),
            "pa slice": lambda: pa.array(np.concatenate([array[:1], array]))[1:],
            "pa chunks": lambda: pa.chunked_array([pa.array(array[:1]), pa.array(array[1:])]),
            "pd arrow": lambda: pd.Series(pd.arrays.ArrowExtensionArray(pa.array(array))),
        }
        if array.dtype != "float16":
            found["pd Index"] = lambda: pd.Index(array)
            found["pa dictionary"] = lambda: pa.DictionaryArray.from_arrays(
                np.arange(len(array)), pa.array(array)
            )
            found["pa runs"] = lambda: runs(array)
        if kind != "f":  # of which equal ones may be different ones
            found["pd categories"] = lambda: pd.Series(array).astype("category")
        if kind in "biu" or (kind == "f" and size > 2):
            name = {"b": "boolean", "i": "Int", "u": "UInt", "f": "Float"}[kind]
            name += "" if kind == "b" else str(8 * size)
            found["pd nullable"] = lambda: pd.Series(pd.array(array, dtype=name))
            found["pd nullable Index"] = lambda: pd.Index(pd.array(array, dtype=name))
    if unit == "D" and few and not np.isnat(array).any():
        found["pa dates"] = lambda: pa.array(array)
        found["pl dates"] = lambda: pl.from_arrow(pa.array(array))
    if (kind in "biuf" and 2 * (kind == "f") < size <= 8) or unit in ("ms", "us", "ns"):
        found["pl Series"] = lambda: pl.from_arrow(pa.array(array))
        found["pl chunks"] = lambda: pl.concat(
            [pl.from_arrow(pa.array(part)) for part in (array[:1], array[1:])], rechunk=False
        )
    # At the ends of int64 pandas 2 reads past its table of a zone's offsets.
    tame = unit == "" or bool(
        ((array.view(np.int64) == NAT) | (abs(array.view(np.int64)) < 2**62)).all()
    )
    if tame and (unit == "ns" or (kind == "M" and unit in ("s", "ms", "us"))):
        found["pd zone"] = lambda: (
            pd.Series(array).dt.tz_localize("UTC").dt.tz_convert("Asia/Kolkata")
            if kind == "M"
            else pd.Series(array)
        )
    return found


def same(array: np.ndarray[Any, Any]) -> bool:
    """Whether NumPy swaps the bytes of this type without touching its values: of a longdouble it does not know how."""
    return array.dtype.itemsize <= 8


def runs(array: np.ndarray[Any, Any]) -> Any:
    ends = pa.array(np.arange(1, len(array) + 1, dtype="int32"))
    return pa.RunEndEncodedArray.from_arrays(ends, pa.array(array))


def objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def of_objects(values: list[Any]) -> Made:
    """What each is by itself."""
    return {
        "py list": lambda: values,
        "py tuple": lambda: tuple(values),
        "py generator": lambda: iter(values),
        "np objects": lambda: objects(values),
        "pd objects": lambda: pd.Series(objects(values), dtype=object),
        "pd Index": lambda: pd.Index(objects(values), dtype=object),
        "pd array": lambda: pd.array(objects(values), dtype=object),
        "pl objects": lambda: pl.Series("v", values, dtype=pl.Object),
    } | categories(values)


def categories(values: list[Any]) -> Made:
    """pandas' categories differ, and are no nulls."""
    index = pd.Index(objects(values), dtype=object)
    try:
        with np.errstate(all="ignore"):
            found = pd.Series(pd.Categorical.from_codes(range(len(values)), index))
    except (ValueError, TypeError, OverflowError):
        return {}
    return {"pd categories": lambda: found}


def of_texts(values: list[str]) -> Made:
    found = of_objects(values)
    array = np.array(values)
    if array.tolist() == values:
        found["np U"] = lambda: array
    found["np StringDType"] = lambda: np.array(values, np.dtypes.StringDType())
    found["pd str"] = lambda: pd.Series(values, dtype="str")
    found["pd python"] = lambda: pd.Series(values, dtype="string[python]")
    found["pd pyarrow"] = lambda: pd.Series(values, dtype="string[pyarrow]")
    found["pd str Index"] = lambda: pd.Index(values)
    found["pl String"] = lambda: pl.Series("v", values, dtype=pl.String)
    found["pl Categorical"] = lambda: pl.Series("v", values, dtype=pl.Categorical)
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        found[f"pa {kind}"] = lambda kind=kind: pa.array(values, kind)
    found["pa dictionary"] = lambda: pa.array(values).dictionary_encode()
    found["pd arrow"] = lambda: pd.Series(values, dtype=pd.ArrowDtype(pa.large_string()))
    return found


def of_blobs(values: list[bytes]) -> Made:
    found = of_objects(values)
    array = np.array(values)
    if array.tolist() == values:
        found["np S"] = lambda: array
    found["pl Binary"] = lambda: pl.Series("v", values, dtype=pl.Binary)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        found[f"pa {kind}"] = lambda kind=kind: pa.array(values, kind)
    if len({len(value) for value in values}) == 1 and values[0]:
        found["pa fixed"] = lambda: pa.array(values, pa.binary(len(values[0])))
    found["pa dictionary"] = lambda: pa.array(values).dictionary_encode()
    found["pd arrow"] = lambda: pd.Series(values, dtype=pd.ArrowDtype(pa.binary()))
    return found


def of_lists(values: list[np.ndarray[Any, Any]]) -> Made:
    """Arrays of one type, each a cell."""
    found = of_objects(values)
    found.pop("pd categories", None)
    found["py lists"] = lambda: [list(value) for value in values]
    found["py deep objects"] = lambda: [
        value.astype(object).tolist() if value.dtype.kind in "biu" else value for value in values
    ]
    found["py Series"] = lambda: [pd.Series(value) if frame(value) else value for value in values]
    found["py Arrow"] = lambda: [pa.array(value) if frame(value) else value for value in values]
    found["py polars"] = lambda: [
        pl.from_arrow(pa.array(value))
        if frame(value) and value.dtype not in NOT_OF_POLARS
        else value
        for value in values
    ]
    shapes = {value.shape for value in values}
    array = np.array(values) if len(shapes) == 1 else None
    if array is not None:
        found["np array"] = lambda: array
        found["np Fortran"] = lambda: np.asfortranarray(array)
    if all(map(frame, values)) and values[0].ndim == 1:
        ends = np.cumsum([0, *map(len, values)])
        flat = pa.array(np.concatenate(values))
        found["pa list"] = lambda: pa.ListArray.from_arrays(pa.array(ends, "int32"), flat)
        found["pa large list"] = lambda: pa.LargeListArray.from_arrays(
            pa.array(ends, "int64"), flat
        )
        found["pd arrow"] = lambda: pd.Series(pd.arrays.ArrowExtensionArray(found["pa list"]()))
        if values[0].dtype not in NOT_OF_POLARS:
            found["pl List"] = lambda: pl.from_arrow(found["pa list"]())
        if len(shapes) == 1 and values[0].size:
            found["pa fixed"] = lambda: pa.FixedSizeListArray.from_arrays(flat, values[0].size)
    return found


def frame(value: np.ndarray[Any, Any]) -> bool:
    """Whether it is an array that Arrow and pandas hold as it is."""
    kind = value.dtype.kind
    if kind in "mM":
        return value.ndim == 1 and np.datetime_data(value.dtype)[0] in ("s", "ms", "us", "ns")
    return value.ndim == 1 and value.dtype.itemsize <= 8


# --- with nulls --------------------------------------------------------------------------------------------------------


def nulls_of_array(array: np.ndarray[Any, Any], valid: np.ndarray[Any, Any]) -> Made:
    """Numbers, bools or times of one type; those that are not `valid` are null."""
    scalars = [value if there else None for value, there in zip(array, valid, strict=True)]
    found = nulls_of_objects(scalars)
    found["np masked"] = lambda: np.ma.masked_array(array, ~valid)
    kind, size = array.dtype.kind, array.dtype.itemsize
    unit = np.datetime_data(array.dtype)[0] if kind in "mM" else ""
    if (kind in "biuf" and size <= 8) or unit in ("s", "ms", "us", "ns"):
        made = pa.array(array, mask=~valid)
        found |= arrow_nulls(made)
        found["pd arrow"] = lambda: pd.Series(pd.arrays.ArrowExtensionArray(made))
        found["pa codes"] = lambda: pa.DictionaryArray.from_arrays(
            pa.array(np.arange(len(array)), mask=~valid), pa.array(array)
        )
    if kind in "mM" and unit in ("s", "ms", "us", "ns"):
        found["pd NaT"] = lambda: pd.Series(np.where(valid, array, np.array("NaT", array.dtype)))
    if kind in "iuf":
        found["pd NaN"] = lambda: pd.Series(np.where(valid, array.astype(float), np.nan))
        found["pd NaN Index"] = lambda: pd.Index(np.where(valid, array.astype(float), np.nan))
    if kind in "biu" or (kind == "f" and size > 2):
        name = {"b": "boolean", "i": "Int", "u": "UInt", "f": "Float"}[kind]
        name += "" if kind == "b" else str(8 * size)
        found["pd nullable"] = lambda: pd.Series(pd.array(scalars, dtype=name))
        found["pd nullable Index"] = lambda: pd.Index(pd.array(scalars, dtype=name))
    if kind != "f":
        found["pd categories"] = lambda: pd.Series(scalars, dtype=object).astype("category")
    if (kind in "biuf" and 2 * (kind == "f") < size <= 8) or unit in ("ms", "us", "ns"):
        found["pl Series"] = lambda: pl.from_arrow(pa.array(array, mask=~valid))
        found["pl chunks"] = lambda: pl.concat(
            [
                pl.from_arrow(pa.array(array[part], mask=~valid[part]))
                for part in (slice(0, 1), slice(1, None))
            ],
            rechunk=False,
        )
    return found


def nulls_of_objects(values: list[Any]) -> Made:
    """What each is by itself, None for a null."""
    found = of_objects(values)
    found.pop("pd categories", None)
    for word, null in (("NaN", float("nan")), ("NA", pd.NA), ("NaT", pd.NaT)):
        found[f"pd objects {word}"] = lambda null=null: pd.Series(
            objects([null if value is None else value for value in values]), dtype=object
        )
    return found


def arrow_nulls(made: Any) -> Made:
    return {
        "pa array": lambda: made,
        "pa slice": lambda: pa.concat_arrays([made[:1], made])[1:],
        "pa chunks": lambda: pa.chunked_array([made[:1], made[1:]]),
        "pa runs": lambda: pa.RunEndEncodedArray.from_arrays(
            pa.array(np.arange(1, len(made) + 1, dtype="int32")), made
        ),
        "pa values": lambda: pa.DictionaryArray.from_arrays(np.arange(len(made)), made),
    }


def nulls_of_texts(values: list[str | None]) -> Made:
    found = nulls_of_objects(values)
    for word, null in (("None", None), ("NaN", float("nan"))):
        found[f"np StringDType {word}"] = lambda null=null: np.array(
            [null if value is None else value for value in values],
            np.dtypes.StringDType(na_object=null),
        )
    for dtype in ("str", "string[python]", "string[pyarrow]", "category"):
        found[f"pd {dtype}"] = lambda dtype=dtype: pd.Series(values, dtype=dtype)
    found["pd arrow"] = lambda: pd.Series(values, dtype=pd.ArrowDtype(pa.large_string()))
    found["pd str Index"] = lambda: pd.Index(values, dtype="string")
    found["pl String"] = lambda: pl.Series("v", values, dtype=pl.String)
    found["pl Categorical"] = lambda: pl.Series("v", values, dtype=pl.Categorical)
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        found[f"pa {kind}"] = lambda kind=kind: pa.array(values, kind)
    found["pa dictionary"] = lambda: pa.array(values).dictionary_encode()
    return found | arrow_nulls(pa.array(values))


def nulls_of_blobs(values: list[bytes | None]) -> Made:
    found = nulls_of_objects(values)
    found["pl Binary"] = lambda: pl.Series("v", values, dtype=pl.Binary)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        found[f"pa {kind}"] = lambda kind=kind: pa.array(values, kind)
    if len({len(value) for value in values if value is not None}) == 1:
        size = max(len(value) for value in values if value is not None)
        found["pa fixed"] = lambda: pa.array(values, pa.binary(size))
    found["pa dictionary"] = lambda: pa.array(values).dictionary_encode()
    found["pd arrow"] = lambda: pd.Series(values, dtype=pd.ArrowDtype(pa.binary()))
    return found | arrow_nulls(pa.array(values))


def nulls_of_lists(values: list[np.ndarray[Any, Any] | None]) -> Made:
    """Arrays of one type, each a cell."""
    found = nulls_of_objects(values)
    there = [value for value in values if value is not None]
    found["py lists"] = lambda: [None if value is None else list(value) for value in values]
    if not there or not all(map(frame, there)):
        return found
    flat = pa.array(there[0]).type
    kinds = [pa.list_(flat), pa.large_list(flat), pa.list_view(flat), pa.large_list_view(flat)]
    if len({value.shape for value in there}) == 1:
        kinds.append(pa.list_(flat, len(there[0])))
        blank = np.zeros_like(there[0])
        mask = [[value is None] * len(there[0]) for value in values]
        found["np masked"] = lambda: np.ma.masked_array(
            [blank if value is None else value for value in values], mask
        )
    for kind in kinds:
        found[f"pa {kind}"] = lambda kind=kind: pa.array(values, kind)
    found["pd arrow"] = lambda: pd.Series(
        pd.arrays.ArrowExtensionArray(pa.array(values, pa.list_(flat)))
    )
    if there[0].dtype not in NOT_OF_POLARS:
        found["pl List"] = lambda: pl.from_arrow(pa.array(values, pa.list_(flat)))
    return found
