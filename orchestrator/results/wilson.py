"""The interval that every share of test images comes with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z = 1.959963984540054
"""The 97.5% quantile of the standard normal distribution."""


def wilson(successes: ArrayLike, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the 95% Wilson score intervals of so many successes in n > 0 (Wilson, 1927): what
    `results.views` computes in SQL."""
    share = np.asarray(successes, np.float64) / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    # Exactly, the ends enclose the share.
    low, high = np.minimum(share, centre - half), np.maximum(share, centre + half)
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
