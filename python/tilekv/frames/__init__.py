"""Frames of pandas, polars and Arrow: what schema one has, how it becomes a store, and a store's rows such a frame again."""
