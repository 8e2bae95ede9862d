"""Filters, compression and checksums of a chunk."""
