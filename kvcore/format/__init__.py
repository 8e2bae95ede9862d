"""How a fragment is laid out."""
