"""Directions and projections in each norm, on (R, H, W, C) float32 arrays.

Radii and sizes are (R, 1, 1, 1) float32. Where a choice is free (a zero gradient, the order of clipping),
Foolbox's is taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]

TINY = 1e-12  # below this length a vector has no direction; Foolbox's constant


def direction(gradient: Images, norm: str) -> Images:
    """The steepest ascent of length 1 in `norm`: sign(g), or g/‖g‖₂. A zero gradient gives no direction."""
    if norm == "linf":
        return np.sign(gradient)
    return gradient * (1 / _lengths(gradient)).astype(np.float32)


def project(images: Images, clean: Images, radius: Images, norm: str) -> Images:
    """The images moved into the ball of `radius` around `clean`, then clipped to the box [0, 1]."""
    change = images - clean
    if norm == "linf":
        change = np.clip(change, -radius, radius)
    else:
        change *= np.minimum(1, radius / _lengths(change)).astype(np.float32)
    return np.clip(clean + change, 0, 1)


def sphere(images: Images, clean: Images, radius: Images) -> Images:
    """The images moved to L2 distance `radius` of `clean` and then clipped to [0, 1]; `clean` stays."""
    change = images - clean
    return np.clip(clean + change * (radius / _lengths(change)).astype(np.float32), 0, 1)


def _lengths(vectors: Images) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("rhwc,rhwc->r", vectors, vectors, dtype=np.float64)
    return np.maximum(np.sqrt(squares), TINY)[:, None, None, None]
