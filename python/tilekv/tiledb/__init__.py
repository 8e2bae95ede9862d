"""The interfaces of TileDB 1.x: TileDB-Py's KV, the C++ Map."""
