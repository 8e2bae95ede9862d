"""Benchmarks: `python -m bench` compares tilekv with its rivals, `python -m bench.layout` shows what each stored layout costs."""
