"""The nearest point of a hyperplane within the box [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.norms import Images, Norm

_PRECISION = 1e-6  # of the change's size: what float32 can tell apart


def to_hyperplane(images: Images, normals: Images, gain: NDArray[np.floating], norm: Norm) -> Images:
    """The smallest change in `norm` by which ⟨normal, image⟩ grows by `gain` (R,), the image in the box.

    `images`, `normals` and the result are (R, H, W, C) float32; normals are not all zero. Where the box is
    too small for the gain, the result comes as near to it as the box allows.

    Each channel moves its own way, at a common speed (linf) or in proportion to its weight (l2), until the
    box stops it. What has been gained by time t is concave and made of straight pieces, so that Newton's
    method from t = 0 meets the gain exactly, in a few steps.
    """
    shape, flat = images.shape, (len(images), int(np.prod(images.shape[1:])))
    signed = np.where(gain < 0, np.float32(-1), np.float32(1))[:, None] * normals.reshape(flat)
    position = images.reshape(flat)
    weights = np.abs(signed)
    speeds = norm.speeds(weights)
    room = np.abs((signed > 0) - position)  # to 1 for those that grow, else to 0
    time = _meeting_time(weights, speeds, room, np.abs(gain).astype(np.float64))
    with np.errstate(over="ignore"):
        moved = np.minimum(speeds * time.astype(np.float32)[:, None], room)
    change: Images = (np.sign(signed) * moved).reshape(shape)
    return change


def _meeting_time(
    weights: NDArray[np.float32],
    speeds: NDArray[np.float32],
    room: NDArray[np.float32],
    gain: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The least t (R,) with Σ weights · min(speeds · t, room) = gain, else the largest float32."""
    time = np.zeros(len(gain))
    rows = np.flatnonzero(gain > 0)
    while len(rows):
        moved = speeds[rows] * time[rows].astype(np.float32)[:, None]
        free = moved < room[rows]
        missing = gain[rows] - np.vecdot(weights[rows], np.minimum(moved, room[rows]))
        rate = np.vecdot(weights[rows], speeds[rows] * free).astype(np.float64)
        possible = rate > 0
        step = np.divide(missing, rate, out=np.zeros(len(rows)), where=possible)
        short = missing > _PRECISION * gain[rows]
        time[rows] += np.maximum(step, 0)
        time[rows[~possible & short]] = np.finfo(np.float32).max
        rows = rows[possible & short & (step > _PRECISION * time[rows])]
    return np.minimum(time, np.finfo(np.float32).max)
