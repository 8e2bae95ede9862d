"""What a look-up costs when nothing of the store is in memory, when all of it is, and when there is room for a part."""
