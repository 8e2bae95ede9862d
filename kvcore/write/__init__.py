"""From a put to a fragment."""
