"""What all else stands on: bytes, files, memory, signals."""
