"""What a run of the tests went through: told at its end, a line a folder."""

from collections import Counter, defaultdict

COUNTS: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by folder


def lines() -> list[str]:
    """As they are printed."""
    return [
        "tilekv: " + ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items()))
        for _, counts in sorted(COUNTS.items())
        if counts
    ]
