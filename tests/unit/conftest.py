"""What the tests of columns need, which is not installed where a wheel is tested."""

from importlib.util import find_spec

# pandas, polars and pyarrow take our columns and give us theirs; some of the fuzzer's samples are encrypted.
if not all(map(find_spec, ("cryptography", "duckdb", "pandas", "polars", "pyarrow"))):
    collect_ignore_glob = [
        "test_arrow*.py",
        "test_dataset.py",
        "test_exact.py",
        "test_expiry.py",
        "test_fields.py",
        "test_frametypes.py",
        "test_giving.py",
        "test_keys.py",
        "test_loading.py",
        "test_nulls.py",
        "test_reading.py",
        "test_saving.py",
        "test_tables.py",
        "test_types.py",
    ]
