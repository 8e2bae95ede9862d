"""TileDB's config keys: those that mean something here, and those that have nothing to set."""

from typing import Final

# TileDB's key -> ours.
TILEDB_KEYS: Final = {
    "sm.tile_cache_size": "kv.cache_bytes",
    "sm.num_tbb_threads": "kv.threads",  # TileDB 1.x
    "sm.compute_concurrency_level": "kv.threads",  # TileDB 2.x
    "sm.consolidation.max_fragment_size": "kv.max_fragment_bytes",
}

# The other keys of TileDB 1.3 to 1.7. There is no query with a memory budget of its own (sm.memory_budget), equal keys are
# always merged (sm.dedup_coords), only maintenance takes a lock (vfs.file.enable_filelocks), and no store is anywhere but in
# files and in memory (vfs.s3, vfs.hdfs, rest).
_IGNORED: Final = """
    sm. array_schema_cache_size check_coord_dups check_coord_oob check_global_order dedup_coords enable_signal_handlers
        fragment_metadata_cache_size memory_budget memory_budget_var num_async_threads num_reader_threads num_writer_threads
    sm.consolidation. amplification buffer_size step_max_frags step_min_frags step_size_ratio steps
    vfs. max_batch_read_amplification max_batch_read_size min_batch_gap min_batch_size min_parallel_size num_threads
    vfs.file. enable_filelocks max_parallel_ops
    vfs.hdfs. kerb_ticket_cache_path name_node name_node_uri username
    vfs.s3. aws_access_key_id aws_secret_access_key ca_file ca_path connect_max_tries connect_scale_factor connect_timeout_ms
        endpoint_override logging_level max_parallel_ops multipart_part_size proxy_host proxy_password proxy_port proxy_scheme
        proxy_username region request_timeout_ms scheme use_multipart_upload use_virtual_addressing verify_ssl
    rest. ignore_ssl_validation password resubmit_incomplete server_address server_serialization_format token username
"""


def _named(lines: str) -> frozenset[str]:
    """The keys of lists of words, of which one that ends in a dot begins those behind it."""
    found, prefix = set(), ""
    for word in lines.split():
        if word.endswith("."):
            prefix = word
        else:
            found.add(prefix + word)
    return frozenset(found)


IGNORED_KEYS: Final = _named(_IGNORED)
