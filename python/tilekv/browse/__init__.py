"""`python -m tilekv browse`: a store to look at, by a browser of this machine."""
