"""The norms that changes of images are measured in: all that depends on one, in one place.

Images and gradients are (R, H, W, C) float32, radii (R, 1, 1, 1) float32. Where a choice is free (a zero
gradient, the order of clipping), Foolbox's is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
NormName = Literal["linf", "l2"]


class Norm(ABC):
    """A way to measure a change; a ball of a radius around an image is what a threat model allows."""

    name: ClassVar[NormName]

    @abstractmethod
    def distance(self, clean: Images, other: Images) -> NDArray[np.float32]:
        """Between images, pair by pair, (R,)."""

    @abstractmethod
    def dual(self, gradients: Images) -> NDArray[np.float64]:
        """How far a step of length 1 raises an affine loss with these gradients, (R,)."""

    @abstractmethod
    def direction(self, gradients: Images) -> Images:
        """The step of length 1 that raises it farthest, in the gradients' dtype; 0 for a zero gradient."""

    @abstractmethod
    def speeds(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """How fast each channel moves on that step, from its gradient's size, but for a common factor."""

    @abstractmethod
    def project(self, images: Images, clean: Images, radius: Images) -> Images:
        """The images moved into the ball of `radius` around `clean`, then clipped to the box [0, 1]."""

    def confine(self, images: Images, clean: Images, radius: Images) -> Images:
        """The images clipped to the box [0, 1], then moved into the ball of `radius` around `clean`.

        The other way round, `project`, shrinks in L2 also what the box then takes away: on images with many
        black or white pixels much of the radius is never spent.
        """
        return self.project(np.clip(images, 0, 1), clean, radius)

    @abstractmethod
    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A point of the ball of radius 1 around 0, all equally likely, of that shape."""

    @abstractmethod
    def replaced(
        self, change: Images, shorter: Images, cost: NDArray[np.floating], radius: float
    ) -> NDArray[np.bool_]:
        """Which channels of one change are to be replaced by shorter ones for its length to be `radius`.

        As few as are enough, those of the least cost first; all of finite cost where that is not enough. All
        of one shape.
        """

    @abstractmethod
    def diagonal(self, size: int) -> float:
        """The distance between opposite corners of the box [0, 1] of so many dimensions."""


class LinfNorm(Norm):
    """The largest change of any channel."""

    name: ClassVar[NormName] = "linf"

    def distance(self, clean: Images, other: Images) -> NDArray[np.float32]:
        largest: NDArray[np.float32] = np.abs(_flat(other - clean)).max(axis=1, initial=0)
        return largest

    def dual(self, gradients: Images) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.abs(_flat(gradients)).sum(axis=1, dtype=np.float64)
        return total

    def direction(self, gradients: Images) -> Images:
        signs: Images = np.sign(gradients)
        return signs

    def speeds(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ones_like(weights)

    def project(self, images: Images, clean: Images, radius: Images) -> Images:
        change: Images = np.clip(images - clean, -radius, radius)
        projected: Images = np.clip(clean + change, 0, 1)
        return projected

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return 2 * generator.random(shape, np.float32) - 1

    def replaced(
        self, change: Images, shorter: Images, cost: NDArray[np.floating], radius: float
    ) -> NDArray[np.bool_]:
        chosen: NDArray[np.bool_] = np.isfinite(cost) & (np.abs(change) > radius)
        return chosen

    def diagonal(self, size: int) -> float:
        return 1.0


class L2Norm(Norm):
    """The Euclidean length of the change, summed in float64."""

    name: ClassVar[NormName] = "l2"

    def distance(self, clean: Images, other: Images) -> NDArray[np.float32]:
        return self.dual(other - clean).astype(np.float32)

    def dual(self, gradients: Images) -> NDArray[np.float64]:
        flat = _flat(gradients)
        squares: NDArray[np.float64] = np.einsum("rd,rd->r", flat, flat, dtype=np.float64)
        return np.sqrt(squares)

    def direction(self, gradients: Images) -> Images:
        # By the largest first: squares and reciprocals of what is tiny leave float32.
        largest = np.abs(_flat(gradients)).max(axis=1, initial=0)
        largest[largest == 0] = 1
        unit: Images = gradients / largest[:, None, None, None]
        unit /= self._lengths(unit).astype(gradients.dtype)
        return unit

    def speeds(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        return weights

    def project(self, images: Images, clean: Images, radius: Images) -> Images:
        change = images - clean
        change *= np.minimum(1, radius / self._lengths(change)).astype(np.float32)
        return np.clip(clean + change, 0, 1)

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
        vector = generator.standard_normal(shape)
        vector *= generator.random() ** (1 / vector.size) / np.linalg.norm(vector)
        return vector.astype(np.float32)

    def replaced(
        self, change: Images, shorter: Images, cost: NDArray[np.floating], radius: float
    ) -> NDArray[np.bool_]:
        squares = np.square(change.ravel(), dtype=np.float64)
        saved = squares - np.square(shorter.ravel(), dtype=np.float64)
        order = np.argsort(cost, axis=None, kind="stable")[: int(np.isfinite(cost).sum())]
        needed = np.searchsorted(np.cumsum(saved[order]), squares.sum() - radius**2) + 1
        chosen = np.zeros(change.size, bool)
        chosen[order[:needed]] = True
        return chosen.reshape(change.shape)

    def diagonal(self, size: int) -> float:
        return float(size**0.5)

    def sphere(self, images: Images, clean: Images, radius: Images) -> Images:
        """The images moved to distance `radius` of `clean` and then clipped to [0, 1]; `clean` stays."""
        change = images - clean
        return np.clip(clean + change * (radius / self._lengths(change)).astype(np.float32), 0, 1)

    def _lengths(self, vectors: Images) -> NDArray[np.float64]:
        """(R, 1, 1, 1); 1 for vectors of length 0."""
        lengths = self.dual(vectors)
        return np.where(lengths > 0, lengths, 1)[:, None, None, None]


LINF, L2 = LinfNorm(), L2Norm()

NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2)}


def _flat(images: Images) -> Images:
    """(R, D), also of no images at all."""
    return images.reshape(len(images), int(np.prod(images.shape[1:])))
