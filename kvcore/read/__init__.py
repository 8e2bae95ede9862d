"""From a digest to a value."""
