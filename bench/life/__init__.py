"""What a store costs while it lives: `python -m bench.life`."""
