"""TileDB's config keys that mean something here."""

from typing import Final

# TileDB's key -> ours. What is not here has nothing to set: there is no query with a memory budget of its own
# (sm.memory_budget), equal keys are always merged (sm.dedup_coords), checksums are always checked
# (sm.skip_checksum_validation), and only maintenance takes a lock (vfs.file.enable_filelocks).
TILEDB_KEYS: Final = {
    "sm.tile_cache_size": "kv.cache_bytes",
    "sm.num_tbb_threads": "kv.threads",  # TileDB 1.x
    "sm.compute_concurrency_level": "kv.threads",  # TileDB 2.x
    "sm.consolidation.max_fragment_size": "kv.max_fragment_bytes",
}
