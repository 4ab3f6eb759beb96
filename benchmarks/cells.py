"""10 million rows in 20,000 cells, whose checks take longer than their files."""

from __future__ import annotations

from benchmarks import shards
from benchmarks.reading import Reading


def measure() -> list[Reading]:
    """As of `benchmarks.shards`, in 2,000 shards of 500 examples × 10 epsilons."""
    return shards.measure(shards=2000, size=500, epsilons=10, merged=3)
