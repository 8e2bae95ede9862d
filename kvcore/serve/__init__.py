"""The compiled half of the Redis server: requests, replies, connections, and the loop that batches them."""
