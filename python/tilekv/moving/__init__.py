"""Moving in: what other programs have stored, read with their own libraries, into a store (docs/moving.md)."""
