"""`python -m tilekv serve`: a store for clients of Redis."""
