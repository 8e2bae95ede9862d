"""What these tests need, which is not installed where a wheel is tested."""

from importlib.util import find_spec

# Their arrays and frames are what values come in.
if not all(map(find_spec, ("duckdb", "pandas", "polars", "pyarrow"))):
    collect_ignore = ["test_containers.py", "test_frames.py", "test_package_index.py"]
