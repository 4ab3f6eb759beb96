"""Images of 8 bits a channel: the nearest within epsilon, and how far saving may have moved one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers import metrics
from workers.norms import Images, Norm

LEVEL = 1 / 255
"""From one grey level of 8 bits to the next."""


def rounded_within(
    images: Images, clean: Images, epsilon: ArrayLike, norm: Norm
) -> tuple[Images, NDArray[np.bool_]]:
    """Images (R, H, W, C) within epsilon, one or (R,), of the clean ones, rounded to 8 bits so that they stay
    within; and which of them do, (R,).

    Each channel takes its nearest grey level. That may carry an image beyond epsilon: then some of the
    channels that were rounded away from the clean image take the level on its side, as few as are enough,
    those first that lie nearest to it (`Norm.replaced`). Where the clean image itself has no grey levels,
    that need not be enough.
    """
    rounded = metrics.round_to_uint8(images)
    radius = np.broadcast_to(epsilon, len(images)) * (1 + metrics.RELATIVE_SLACK) + metrics.ABSOLUTE_SLACK / 2
    for row in np.flatnonzero(~metrics.within(norm.distance(clean, rounded), epsilon)):
        change, moved = rounded[row] - clean[row], rounded[row] - images[row]
        step = np.where(change * moved > 0, np.sign(change), 0).astype(np.float32)
        nearer = metrics.round_to_uint8(rounded[row] - step * np.float32(LEVEL))
        shorter = nearer - clean[row]
        # The farther a channel was rounded, the nearer it lies to its other level.
        cost = np.where(np.abs(shorter) < np.abs(change), -np.abs(moved), np.inf)
        replaced = norm.replaced(change, shorter, cost, float(radius[row]))
        rounded[row] = np.where(replaced, nearer, rounded[row])
    return rounded, metrics.within(norm.distance(clean, rounded), epsilon)


def moved_by_saving(images: NDArray[np.uint8] | NDArray[np.floating]) -> float:
    """How far saving may have moved a channel of these images, [0, 1] scale.

    A whole level for those of 8 bits, be they kept as uint8 or as floats: rounding moves by half of one, but
    tools that cut off (`astype(np.uint8)`) by one. 0 for other floats.
    """
    if images.dtype == np.uint8:
        return LEVEL
    levels = images.astype(np.float32) * np.float32(255)
    return LEVEL if np.abs(levels - np.rint(levels)).max(initial=0) < 1e-3 else 0.0
