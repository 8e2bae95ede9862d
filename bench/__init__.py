"""Benchmarks: `python -m bench` compares tilekv with LMDB, `python -m bench.layout` shows what each stored layout costs."""
