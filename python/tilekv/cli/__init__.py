"""What python -m tilekv is made of."""
