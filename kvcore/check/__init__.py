"""What is damaged, and what is proven right."""
