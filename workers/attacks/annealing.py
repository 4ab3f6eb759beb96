"""Step sizes that shrink over an attack's budget."""

from __future__ import annotations

import math


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 down to `end` at step `steps`, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2
