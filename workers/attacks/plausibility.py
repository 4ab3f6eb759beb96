"""Whether images of a file can be what it says: made from these clean images, by an attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.flags import Flag
from workers.norms import L2, Images, Norm

_LEAST = 5  # images: fewer are not judged
_NEARER = 0.25  # of the other clean images
_COMPARED = 64  # images, of which each is held against each


def unchanged(images: Images, clean: Images, moved: float) -> bool:
    """Whether most of the images (R, H, W, C) are the clean ones, up to rounding by `moved` / 2."""
    apart = np.abs(images - clean).max(axis=(1, 2, 3), initial=0)
    return len(images) >= _LEAST and _most(apart <= moved / 2 + metrics.ABSOLUTE_SLACK)


def implausible(images: Images, clean: Images, norm: Norm, epsilon: float) -> Flag | None:
    """What is wrong with most of some images (R, H, W, C) said to be made from clean ones, if anything.

    `OTHER_IMAGES`: more than a quarter of the other clean images are nearer (L2). Where the rows are mixed
    up, half of them are; attacks on digits come to a tenth, at twice an epsilon that breaks everything.
    `FAR_IMAGES`: in `norm` farther away than twice epsilon, and than half of what the nearest of the others
    is. Looks at the first 64.
    """
    images, clean = images[:_COMPARED], clean[:_COMPARED]
    if len(images) < _LEAST:
        return None
    # A test split may hold an image twice.
    same = np.array([(clean == one).all(axis=(1, 2, 3)) for one in clean])
    apart = np.where(same, np.inf, _apart(images, clean, L2))
    if _most((apart < L2.distance(clean, images)[:, None]).mean(axis=1) > _NEARER):
        return Flag.OTHER_IMAGES
    own, others = norm.distance(clean, images), np.where(same, np.inf, _apart(images, clean, norm))
    return Flag.FAR_IMAGES if _most((own > 2 * epsilon) & (own > others.min(axis=1) / 2)) else None


def _apart(images: Images, clean: Images, norm: Norm) -> NDArray[np.float32]:
    """The distance of each image to each of the clean ones, (R, R)."""
    return np.array([norm.distance(clean, np.broadcast_to(image, clean.shape)) for image in images])


def _most(found: NDArray[np.bool_]) -> bool:
    return bool(found.mean() > 0.5)
