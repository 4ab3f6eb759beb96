"""The fast adaptive boundary attack, against the nearest of all boundaries or against some classes'."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.classes import likeliest
from workers.attacks.deepfool import GRADIENT_BYTES
from workers.attacks.hyperplane import to_hyperplane
from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest, Rows
from workers.norms import LINF, Images, Norm

_TINY = 1e-8


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class FAB(MinimumNorm):
    """`steps` along the linearised boundary with each of the `targeted_classes` most likely other classes.

    With `targeted_classes: 0` there is one run, in which every step takes the nearest of the boundaries with
    all other classes: the paper's own attack, for which a step costs a gradient for each of them.

    Every step goes to a mixture of the projections of the iterate and of the clean image onto the boundary's
    hyperplane within the box: the clean image's share is at most `alpha_max`, both go `eta` times as far.
    From a misclassified image the next step begins `beta` of its way from the clean image. The first restart
    begins at the clean image, each further one at random, within half the distance found by then (anywhere
    in the box where nothing has been found). Croce and Hein, "Minimally Distorted Adversarial Examples with a
    Fast Adaptive Boundary Attack" (arXiv:1907.02044); FAB-T and its defaults as AutoAttack's. `refine` stands
    for the paper's final search.
    """

    name: ClassVar[str] = "fab"
    randomised: ClassVar[bool] = True

    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] = 1
    targeted_classes: Annotated[int, Field(ge=0)] = 9
    alpha_max: Annotated[float, Field(ge=0, le=1)] = 0.1
    eta: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.05
    beta: Annotated[float, Field(gt=0, le=1)] = 0.9

    def find(self, nearest: Nearest) -> None:
        logits = nearest.logits(np.arange(len(nearest)), nearest.clean)
        # One run is against each class, (n, 1), or against all others at once, (n, K - 1).
        classes = likeliest(logits, nearest.labels, self.targeted_classes or logits.shape[1] - 1)
        if not classes.shape[1]:  # a model of one class has no boundary
            return
        runs = np.split(classes, classes.shape[1], axis=1) if self.targeted_classes else [classes]
        for restart in range(self.restarts):
            for rank, aimed in enumerate(runs):
                start = _start(nearest, restart * len(runs) + rank) if restart else nearest.clean
                self._run(nearest, start, aimed)

    def _run(self, nearest: Nearest, start: Images, classes: NDArray[np.int32]) -> None:
        """Search from `start` (n, H, W, C) along the nearest of the boundaries with `classes` (n, J)."""
        rows, iterates = np.arange(len(nearest)), start
        for _ in range(self.steps):
            gaps, normals = _nearest_boundary(nearest, rows, iterates, classes[rows])
            # Without a gradient there is no hyperplane, here or at any later step.
            sloping = normals.any(axis=(1, 2, 3))
            rows, iterates, gaps, normals = rows[sloping], iterates[sloping], gaps[sloping], normals[sloping]
            if not len(rows):
                return
            iterates = self._step(iterates, nearest.clean[rows], gaps, normals, nearest.norm)
            success = nearest.offer(rows, iterates, nearest.logits(rows, iterates))
            clean = nearest.clean[rows[success]]
            iterates[success] = clean + np.float32(self.beta) * (iterates[success] - clean)

    def _step(
        self, iterates: Images, clean: Images, gaps: NDArray[np.float32], normals: Images, norm: Norm
    ) -> Images:
        """The next iterates (r, H, W, C), where z_target − z_label is `gaps` (r,) and has these gradients."""
        # A hyperplane has no scale, and products of what is tiny or huge leave float32.
        size = np.abs(normals).max(axis=(1, 2, 3))
        normals, gaps = normals / size[:, None, None, None], gaps / size
        offset = np.einsum("rhwc,rhwc->r", normals, iterates - clean, dtype=np.float64)
        here = to_hyperplane(iterates, normals, -gaps, norm)
        there = to_hyperplane(clean, normals, offset - gaps, norm)
        near, far = _size(here, norm), _size(there, norm)
        alpha = np.minimum(near / (near + far), np.float32(self.alpha_max))
        eta = np.float32(self.eta)
        mixture: Images = (1 - alpha) * (iterates + eta * here) + alpha * (clean + eta * there)
        return np.clip(mixture, 0, 1)


def _nearest_boundary(
    nearest: Nearest, rows: Rows, images: Images, classes: NDArray[np.int32]
) -> tuple[NDArray[np.float32], Images]:
    """z_class − z_label, (r,), and its gradient, (r, H, W, C), for that of `classes` (r, J) whose linearised
    boundary is nearest to the image."""
    if classes.shape[1] == 1:
        _, gaps, normals = nearest.gradients(rows, images, "difference", classes[:, 0])
        return gaps, normals
    gaps, normals = np.empty(len(rows), np.float32), np.empty_like(images)
    part = max(1, GRADIENT_BYTES // (classes.shape[1] * images[0].nbytes))
    for start in range(0, len(rows), part):
        cut = slice(start, start + part)
        logits, gradients = nearest.differences(rows[cut], images[cut], classes[cut])
        labels = nearest.labels[rows[cut]][:, None]
        ahead = np.take_along_axis(logits, classes[cut], 1) - np.take_along_axis(logits, labels, 1)
        dual = nearest.norm.dual(gradients.reshape(-1, *images.shape[1:])).reshape(ahead.shape)
        distances = np.full(ahead.shape, np.inf)
        np.divide(np.abs(ahead), dual, out=distances, where=dual > 0)
        each, best = np.arange(len(ahead)), distances.argmin(axis=1)
        gaps[cut], normals[cut] = ahead[each, best], gradients[each, best]
    return gaps, normals


def _start(nearest: Nearest, stream: int) -> Images:
    """Random points (n, H, W, C): see `FAB`."""
    examples, shape = nearest.example, nearest.clean.shape[1:]
    unit = nearest.randomness.draw(nearest.norm, examples, shape, stream)
    anywhere = (1 + nearest.randomness.draw(LINF, examples, shape, stream)) / 2
    found = np.isfinite(nearest.distance)
    radius = np.where(found, nearest.distance / 2, 0).astype(np.float32)[:, None, None, None]
    around = np.clip(nearest.clean + radius * unit, 0, 1)
    return np.where(found[:, None, None, None], around, anywhere)


def _size(changes: Images, norm: Norm) -> Images:
    """Lengths (r, 1, 1, 1) of the changes, never 0."""
    positive: Images = np.maximum(norm.distance(np.zeros_like(changes), changes), np.float32(_TINY))
    return positive[:, None, None, None]
