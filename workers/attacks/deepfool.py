"""DeepFool: one step after another to the nearest of the classes' linearised boundaries."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.classes import likeliest
from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest, Rows
from workers.norms import Images, Norm

STABILITY = 1e-4
"""Added to every step's length, as Foolbox does, so that it ends beyond the boundary."""

GRADIENT_BYTES = 2**27
"""What gradients may take at a time, several an image."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class DeepFool(MinimumNorm):
    """Up to `steps` steps, each to the nearest boundary of the model linearised at the iterate.

    `candidates`: the label and the best other classes at the clean image are so many; null means all.
    `followed`: after the first step only so many of the others, those whose boundaries are nearest, have
    gradients computed; null means all. `overshoot`: how far the sum of the steps is stretched. An example
    stops at its first success, or where no candidate has a gradient.

    Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural
    networks" (arXiv:1511.04599); other defaults as Foolbox's `L2DeepFoolAttack` and `LinfDeepFoolAttack`,
    clipped to the box at every step as they are, and the same iterates with `followed=None`.
    """

    name: ClassVar[str] = "deepfool"
    NORMS: ClassVar[tuple[str, ...]] = ("l2", "linf")

    norm: Literal["linf", "l2"] = "l2"
    steps: Annotated[int, Field(ge=1)] = 50
    candidates: Annotated[int, Field(ge=2)] | None = 10
    followed: Annotated[int, Field(ge=1)] | None = 2
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    def find(self, nearest: Nearest) -> None:
        rows, iterates = np.arange(len(nearest)), nearest.clean
        logits = nearest.logits(rows, iterates)
        classes = likeliest(logits, nearest.labels, (self.candidates or logits.shape[1]) - 1)
        if not classes.shape[1]:  # a model of one class has no boundary
            return
        total = np.zeros_like(iterates)
        for _ in range(self.steps):
            steps, distances = _steps(nearest, rows, iterates, classes)
            if self.followed:
                closest = np.argsort(distances, axis=1, kind="stable")[:, : self.followed]
                classes = np.take_along_axis(classes, closest, axis=1)
            moving = np.isfinite(distances).any(axis=1)
            rows, classes, total = rows[moving], classes[moving], total[moving] + steps[moving]
            if not len(rows):
                return
            iterates = np.clip(nearest.clean[rows] + np.float32(1 + self.overshoot) * total, 0, 1)
            going = ~nearest.offer(rows, iterates, nearest.logits(rows, iterates))
            rows, classes, iterates, total = rows[going], classes[going], iterates[going], total[going]
            if not len(rows):
                return


def _steps(
    nearest: Nearest, rows: Rows, images: Images, classes: NDArray[np.int32]
) -> tuple[Images, NDArray[np.float64]]:
    """Each row's step to its nearest linearised boundary, (r, H, W, C), and the distances to all, (r, J)."""
    steps, distances = np.empty_like(images), np.empty(classes.shape)
    part = max(1, GRADIENT_BYTES // (classes.shape[1] * images[0].nbytes))
    for start in range(0, len(rows), part):
        cut = slice(start, start + part)
        logits, gradients = nearest.differences(rows[cut], images[cut], classes[cut])
        labels = nearest.labels[rows[cut]][:, None]
        leads = np.take_along_axis(logits, labels, 1) - np.take_along_axis(logits, classes[cut], 1)
        steps[cut], distances[cut] = _to_boundaries(leads, gradients, nearest.norm)
    return steps, distances


def _to_boundaries(leads: Images, gradients: Images, norm: Norm) -> tuple[Images, NDArray[np.float64]]:
    """The shortest of the steps that take each of the label's leads (r, J) to 0, and the lengths of all.

    `gradients` are (r, J, H, W, C), of the leads' negatives; without one the boundary is infinitely far.
    """
    shape = gradients.shape[2:]
    dual = norm.dual(gradients.reshape(-1, *shape)).reshape(leads.shape)
    distances = np.full(dual.shape, np.inf)
    np.divide(np.abs(leads), dual, out=distances, where=dual > 0)
    rows = np.arange(len(leads))
    best = distances.argmin(axis=1)
    # A step longer than the box is wide says no more than its direction does.
    length = np.minimum(distances[rows, best], norm.diagonal(int(np.prod(shape)))) + STABILITY
    scale = np.maximum(dual[rows, best], np.finfo(np.float64).tiny)
    # In float64, and of about length 1: a direction is lost neither to rounding nor to underflow.
    normal = gradients[rows, best] / scale[:, None, None, None]
    steps = length[:, None, None, None] * norm.direction(normal)
    return steps.astype(np.float32), distances
