"""Reading the key-value stores that TileDB 1.3 to 1.7 wrote (docs/format.md 0 to 7, and 9).

names -> cipher, tiles -> generic -> schema -> metadata -> fragment -> opener. An old fragment is decoded tile by tile and written
again, into memory, as a fragment of tilekv's own: whatever reads a store knows nothing of old formats.
"""
