"""Digests of keys, and the coordinates made of them."""
