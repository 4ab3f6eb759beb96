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

BLUR = 1e-5
"""The share of the logits' size that a lead must exceed: less may be gone in the next run's rounding."""

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


def favours(
    logits: NDArray[np.floating], classes: NDArray[np.integer], scale: float = 0.0
) -> NDArray[np.bool_]:
    """Whether (N, K) logits favour the (N,) classes over every other by more than their blur. (N,) bool.

    So a clean image is answered rightly where its label is favoured, and a target reached where that is.
    """
    return -lead(logits, classes) > blur(logits, scale)


def fools(logits: NDArray[np.floating], labels: NDArray[np.integer], scale: float = 0.0) -> NDArray[np.bool_]:
    """Whether (N, K) logits favour a class other than the (N,) labels by more than their blur. (N,) bool."""
    return lead(logits, labels) > blur(logits, scale)


def blur(logits: NDArray[np.floating], scale: float = 0.0) -> NDArray[np.float64]:
    """The lead of one of the (N, K) logits that says nothing, (N,): multiplied with them by any constant.

    A share of the largest of them, or of `scale`, the usual size of the model's logits, where that is more:
    two logits that cancel may be far smaller than what went into them.
    """
    with np.errstate(invalid="ignore"):
        size: NDArray[np.float64] = np.abs(np.asarray(logits, np.float64)).max(axis=1)
    return BLUR * np.maximum(size, scale)


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
