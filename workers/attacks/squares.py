"""Random square-shaped changes of images: where the square attack begins, and what it tries next.

Images are (R, H, W, C) float32, radii (R, 1, 1, 1); `draws` (R, k) float64 in [0, 1) are all the randomness,
a row's own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from workers.norms import L2, Images

Draws = NDArray[np.float64]
Window = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

_TINY = 1e-12


class LinfSquares:
    """Squares of one change an image and channel: epsilon up or down."""

    least = 1  # pixels

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._height, self._width, self._channels = shape
        self.first_draws = self._width * self._channels
        self.draws = 2 + self._channels

    def start(self, clean: Images, radius: Images, draws: Draws) -> Images:
        """Vertical stripes, one pixel wide."""
        stripes = _signs(draws).reshape(len(clean), 1, self._width, self._channels)
        return np.clip(clean + radius * stripes, 0, 1)

    def propose(self, images: Images, clean: Images, radius: Images, side: int, draws: Draws) -> Images:
        """The images with one square of `side` each changed in all channels."""
        window = _windows(draws[:, :2], side, self._height, self._width)
        signs = _signs(draws[:, 2:])[:, None, None, :]
        current, around = images[window], clean[window]
        square = np.clip(around + radius * signs, 0, 1)
        # A query that changes nothing is wasted: the opposite square is tried instead.
        idle = (square == current).all(axis=(1, 2, 3), keepdims=True)
        square = np.where(idle, np.clip(around - radius * signs, 0, 1), square)
        proposed = images.copy()
        proposed[window] = square
        return proposed


class L2Squares:
    """Squares with a peak up and one down; what is left of the budget moves between squares."""

    least = 3  # pixels, and odd

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._height, self._width, self._channels = shape
        self._tile = max(1, min(self._height, self._width) // 5)
        self._tiles = self._height // self._tile, self._width // self._tile
        self.first_draws = self._tiles[0] * self._tiles[1] * self._channels
        self.draws = 5 + self._channels

    def start(self, clean: Images, radius: Images, draws: Draws) -> Images:
        """Peaks of random sign all over the image, in about 5 by 5 tiles."""
        down, across = self._tiles
        signs = _signs(draws).reshape(len(clean), down, 1, across, 1, self._channels)
        tiles = signs * _peaks(self._tile)[0][None, None, :, None, :, None]
        height, width = down * self._tile, across * self._tile
        top, left = (self._height - height) // 2, (self._width - width) // 2
        change = np.zeros_like(clean)
        change[:, top : top + height, left : left + width] = tiles.reshape(len(clean), height, width, -1)
        return _at_radius(change, clean, radius)

    def propose(self, images: Images, clean: Images, radius: Images, side: int, draws: Draws) -> Images:
        """The images with the change in one square taken away and given to a new peak in another."""
        change = images - clean
        gaining = _windows(draws[:, :2], side, self._height, self._width)
        losing = _windows(draws[:, 2:4], side, self._height, self._width)
        turned = (draws[:, 4] >= 0.5).astype(np.intp)
        unused = np.maximum(radius**2 - _squares(change).sum(axis=3, keepdims=True), 0)
        old = change[gaining]
        budget = _squares(old) + unused / self._channels
        change[gaining] = 0
        budget += _squares(change[losing])  # what both squares share is in `old` already
        change[losing] = 0
        new = _peaks(side)[turned][..., None] * _signs(draws[:, 5:])[:, None, None, :] + _unit(old)
        change[gaining] = _unit(new) * np.sqrt(budget)
        return _at_radius(change, clean, radius)


def _windows(draws: Draws, side: int, height: int, width: int) -> Window:
    """Indices of a square in each image, its place drawn (R, 2)."""
    pixels = np.arange(side)
    top = (draws[:, 0] * (height - side + 1)).astype(np.intp)
    left = (draws[:, 1] * (width - side + 1)).astype(np.intp)
    rows = np.arange(len(draws))[:, None, None]
    return rows, (top[:, None] + pixels)[:, :, None], (left[:, None] + pixels)[:, None, :]


def _signs(draws: Draws) -> Images:
    return np.where(draws < 0.5, np.float32(-1), np.float32(1))


def _squares(change: Images) -> Images:
    """Sums of squares by channel, (R, 1, 1, C)."""
    squares: Images = np.einsum("rhwc,rhwc->rc", change, change)[:, None, None, :]
    return squares


def _unit(change: Images) -> Images:
    """Each channel at length 1; a channel of zeros stays."""
    lengths: Images = np.sqrt(_squares(change))
    return change / (lengths + np.float32(_TINY))


def _at_radius(change: Images, clean: Images, radius: Images) -> Images:
    """The clean images with the changes at full length, then clipped to the box."""
    length = np.sqrt(_squares(change).sum(axis=3, keepdims=True))
    return L2.project(clean + change * (radius / (length + np.float32(_TINY))), clean, radius)


@cache
def _peaks(side: int) -> Images:
    """A peak above a peak downwards, (side, side) at length 1; and the same turned by 90 degrees."""
    upper = _peak(side // 2, side)
    peaks = np.concatenate([upper, -_peak(side - side // 2, side)])
    both: Images = np.stack([peaks, peaks.T]).astype(np.float32)
    return both / np.float32(np.linalg.norm(peaks))


def _peak(height: int, width: int) -> NDArray[np.float64]:
    """Sums of centred squares that grow as their weights fall, 1, 1/4, 1/9, …; at length 1."""
    if not height:
        return np.zeros((0, width))
    off_centre = np.maximum(
        np.abs(np.arange(height) - height // 2)[:, None], np.abs(np.arange(width) - width // 2)
    )
    weights = 1 / np.arange(1, max(height, width) // 2 + 2) ** 2
    peak: NDArray[np.float64] = weights[::-1].cumsum()[::-1][off_centre]
    return peak / np.linalg.norm(peak)
