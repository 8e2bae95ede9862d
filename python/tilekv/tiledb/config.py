"""TileDB's config keys: those that mean something here, and those that have nothing to set."""

from collections.abc import Mapping
from typing import Final

# TileDB's key -> ours.
TILEDB_KEYS: Final = {
    "sm.tile_cache_size": "kv.cache_bytes",
    "sm.num_tbb_threads": "kv.threads",  # TileDB 1.x
    "sm.compute_concurrency_level": "kv.threads",  # TileDB 2.x
    "sm.consolidation.max_fragment_size": "kv.max_fragment_bytes",
}

# The other keys of TileDB 1.3 to 1.7. There is no query with a memory budget of its own (sm.memory_budget), equal keys are
# always merged (sm.dedup_coords), only maintenance takes a lock (vfs.file.enable_filelocks), and no store is in HDFS or behind
# a server (vfs.hdfs, rest).
_IGNORED: Final = """
    sm. array_schema_cache_size check_coord_dups check_coord_oob check_global_order dedup_coords enable_signal_handlers
        fragment_metadata_cache_size memory_budget memory_budget_var num_async_threads num_reader_threads num_writer_threads
    sm.consolidation. amplification buffer_size step_max_frags step_min_frags step_size_ratio steps
    vfs. max_batch_read_amplification max_batch_read_size min_batch_gap min_batch_size min_parallel_size num_threads
    vfs.file. enable_filelocks max_parallel_ops
    vfs.hdfs. kerb_ticket_cache_path name_node name_node_uri username
    vfs.s3. ca_file ca_path connect_scale_factor logging_level multipart_part_size proxy_host proxy_password proxy_port
        proxy_scheme proxy_username use_multipart_upload
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

# What of S3 is a storage option by its name; the last two are TileDB 2's.
_S3_NAMES: Final = {
    "region": "region",
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "use_virtual_addressing": "virtual_hosted_style_request",
    "connect_max_tries": "max_retries",
    "max_parallel_ops": "connections",
    "aws_session_token": "session_token",
    "no_sign_request": "skip_signature",
}
_S3_OTHERS: Final = (
    "vfs.s3. scheme endpoint_override connect_timeout_ms request_timeout_ms verify_ssl"
)
S3_KEYS: Final = frozenset(f"vfs.s3.{name}" for name in _S3_NAMES) | _named(_S3_OTHERS)


def s3_options(given: Mapping[str, str]) -> dict[str, str]:
    """The storage options that TileDB's keys stand for; empty ones are as if they were left out."""
    said = {key.removeprefix("vfs.s3."): value for key, value in given.items() if value}
    found = {ours: said[name] for name, ours in _S3_NAMES.items() if name in said}
    if "endpoint_override" in said:
        found["endpoint"] = f"{said.get('scheme', 'https')}://{said['endpoint_override']}"
    for name, ours in (
        ("connect_timeout_ms", "connect_timeout"),
        ("request_timeout_ms", "timeout"),
    ):
        if name in said:
            found[ours] = f"{float(said[name]) / 1000:g}"
    if said.get("verify_ssl") == "false":
        found["allow_invalid_certificates"] = "true"
    return found
