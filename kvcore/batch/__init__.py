"""Many keys at once, and columns."""
