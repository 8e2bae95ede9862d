"""The program that keeps an image in Redis, as an article has it: its port is another, and it checks what it gets."""

import io
import sys

import redis
from PIL import Image

# Connect to Redis
r = redis.Redis(host="localhost", port=int(sys.argv[1]), db=0)

# Load your image with Pillow
image_path = sys.argv[2]
image = Image.open(image_path)

# Convert the image to bytes
img_byte_arr = io.BytesIO()
image.save(img_byte_arr, format=image.format)
img_byte_arr = img_byte_arr.getvalue()

# Use the image name or any unique identifier as the key
key = "unique_image_key"

# Store the image
r.set(key, img_byte_arr)

# Retrieve the image
img_bytes = r.get(key)

# Convert back to an image
img = Image.open(io.BytesIO(img_bytes))
assert img.tobytes() == Image.open(io.BytesIO(img_byte_arr)).tobytes()
