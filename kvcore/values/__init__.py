"""Cells of Python objects, NumPy arrays and Arrow columns."""
