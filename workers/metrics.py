"""What is measured on images and logits: who is fooled, how far an image is, how visible the change.

Images are float32 in [0, 1], NHWC. Epsilons and distances are on the same [0, 1] scale.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workers.norms import L2, LINF

VERSION = 2
"""Part of every cell's identity: raise it when any number that this module returns changes."""

FOOLING_MARGIN = 1e-4  # logits: a smaller lead may be gone in the next run's rounding
RELATIVE_SLACK = 1e-5  # of epsilon: rounding of a projection in float32
ABSOLUTE_SLACK = 1e-6
VISIBLE_CHANGE = 1 / 510  # half a grey level of 8 bits
SSIM_WINDOW = 11  # pixels; smaller images have no SSIM


class Distances(NamedTuple):
    """Distances between images, each (N,) float32. `l0` counts changed pixels, not channels."""

    linf: NDArray[np.float32]
    l2: NDArray[np.float32]
    l0: NDArray[np.float32]


class Perceptibility(NamedTuple):
    """How visible a change is, each (N,) float32.

    `ssim` in [-1, 1], NaN for images below 11 pixels in height or width; `psnr` in dB, infinite for
    identical images; `changed_share`: of pixels, with a channel changed by more than 1/510.
    """

    ssim: NDArray[np.float32]
    psnr: NDArray[np.float32]
    linf: NDArray[np.float32]
    l2: NDArray[np.float32]
    changed_share: NDArray[np.float32]


def answered(logits: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether (N, K) logits are all finite: others favour no class. (N,) bool."""
    return np.asarray(np.isfinite(logits).all(axis=1))


def right(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether (N, K) logits are finite and highest at the (N,) labels. (N,) bool."""
    correct: NDArray[np.bool_] = answered(logits) & (logits.argmax(axis=1) == labels)
    return correct


def fools(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether (N, K) logits favour a class other than the (N,) labels by more than 1e-4. (N,) bool."""
    return lead(logits, labels) > FOOLING_MARGIN


def reaches(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether (N, K) logits favour the (N,) targets over every other class by more than 1e-4. (N,) bool."""
    return -lead(logits, targets) > FOOLING_MARGIN


def lead(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> NDArray[np.float64]:
    """By how much the best of the other (N, K) logits leads that of the (N,) classes. (N,) float64.

    NaN where logits are not finite.
    """
    rows = np.arange(len(classes))
    others = np.array(logits, np.float64)
    others[~answered(others)] = np.nan
    own = others[rows, classes]
    others[rows, classes] = -np.inf
    ahead: NDArray[np.float64] = others.max(axis=1) - own
    return ahead


def within(distance: ArrayLike, epsilon: ArrayLike) -> NDArray[np.bool_]:
    """Whether a distance is at most epsilon, up to float32 rounding; both broadcast."""
    limit = np.asarray(epsilon, np.float64) * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK
    return np.asarray(distance, np.float64) <= limit


def distances(clean: NDArray[np.float32], other: NDArray[np.float32]) -> Distances:
    """The distances between (N, H, W, C) images, pair by pair."""
    changed = (clean != other).any(axis=3)
    pixels = changed.sum(axis=(1, 2)).astype(np.float32)
    return Distances(LINF.distance(clean, other), L2.distance(clean, other), pixels)


def perceptibility(clean: NDArray[np.float32], other: NDArray[np.float32]) -> Perceptibility:
    """How visible the change from `clean` to `other` is, pair by pair; both (N, H, W, C)."""
    length = L2.distance(clean, other)
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(length.astype(np.float64) ** 2 / np.prod(clean.shape[1:]))
    visible = (np.abs(other - clean) > VISIBLE_CHANGE).any(axis=3)
    return Perceptibility(
        _ssim(clean, other),
        psnr.astype(np.float32),
        LINF.distance(clean, other),
        length,
        visible.mean(axis=(1, 2), dtype=np.float32),
    )


def round_to_uint8(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The images as they are after saving with 8 bits a channel and loading again."""
    levels: NDArray[np.float32] = np.rint(images * np.float32(255))
    return levels / np.float32(255)


def _ssim(clean: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    if min(clean.shape[1:3]) < SSIM_WINDOW or not len(clean):
        return np.full(len(clean), np.nan, np.float32)
    import tensorflow as tf

    ssim: NDArray[np.float32] = tf.image.ssim(clean, other, max_val=1.0).numpy()
    return ssim
