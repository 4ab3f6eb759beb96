"""DeepFool: one step after another to the nearest of the classes' linearised boundaries."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest, Rows
from workers.attacks.projection import Images

STABILITY = 1e-4  # added to every step's length, as Foolbox does, so that it ends beyond the boundary
GRADIENT_BYTES = 2**27  # of gradients held at a time, several an image


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class DeepFool(MinimumNorm):
    """Up to `steps` steps, each to the nearest boundary of the model linearised at the iterate.

    `candidates`: the label and the best other classes at the clean image are so many; null means all.
    `overshoot`: how far the sum of the steps is stretched. An example stops at its first success, or where no
    candidate has a gradient. Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to
    fool deep neural networks" (arXiv:1511.04599); defaults as Foolbox's `L2DeepFoolAttack` and
    `LinfDeepFoolAttack`, clipped to the box at every step as they are.
    """

    name: ClassVar[str] = "deepfool"
    NORMS: ClassVar[tuple[str, ...]] = ("l2", "linf")

    norm: Literal["linf", "l2"] = "l2"
    steps: Annotated[int, Field(ge=1)] = 50
    candidates: Annotated[int, Field(ge=2)] | None = 10
    overshoot: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02

    def find(self, nearest: Nearest) -> None:
        rows = np.arange(len(nearest))
        logits = nearest.logits(rows, nearest.clean)
        classes = _others(logits, nearest.labels, self.candidates or logits.shape[1])
        if not classes.shape[1]:  # a model of one class has no boundary
            return
        iterates, total = nearest.clean, np.zeros_like(nearest.clean)
        for _ in range(self.steps):
            steps = _steps(nearest, rows, iterates, classes[rows])
            moving = steps.any(axis=(1, 2, 3))
            rows, total = rows[moving], total[moving] + steps[moving]
            if not len(rows):
                return
            iterates = np.clip(nearest.clean[rows] + np.float32(1 + self.overshoot) * total, 0, 1)
            going = ~nearest.offer(rows, iterates, nearest.logits(rows, iterates))
            rows, iterates, total = rows[going], iterates[going], total[going]
            if not len(rows):
                return


def _others(logits: Images, labels: NDArray[np.int32], candidates: int) -> NDArray[np.int32]:
    """The best classes but the label, (n, J): one less than there are candidates, or classes."""
    ranked = logits.copy()
    ranked[np.arange(len(labels)), labels] = np.inf
    order = np.argsort(-ranked, axis=1, kind="stable")
    return order[:, 1:candidates].astype(np.int32)


def _steps(nearest: Nearest, rows: Rows, images: Images, classes: NDArray[np.int32]) -> Images:
    """Each row's step to its nearest linearised boundary, (r, H, W, C); 0 where there is no gradient."""
    steps = np.empty_like(images)
    part = max(1, GRADIENT_BYTES // (classes.shape[1] * images[0].nbytes))
    for start in range(0, len(rows), part):
        cut = slice(start, start + part)
        logits, gradients = nearest.differences(rows[cut], images[cut], classes[cut])
        labels = nearest.labels[rows[cut]][:, None]
        leads = np.take_along_axis(logits, labels, 1) - np.take_along_axis(logits, classes[cut], 1)
        steps[cut] = _to_boundary(leads, gradients, nearest.norm)
    return steps


def _to_boundary(leads: Images, gradients: Images, norm: str) -> Images:
    """The shortest of the steps (r, J, H, W, C) that take each of the label's leads (r, J) to 0."""
    flat = gradients.reshape(*leads.shape, -1)
    if norm == "linf":
        dual, longest = np.abs(flat).sum(axis=2, dtype=np.float64), 1.0
    else:
        dual = np.sqrt(np.einsum("rjd,rjd->rj", flat, flat, dtype=np.float64))
        longest = float(np.sqrt(flat.shape[2]))
    distances = np.divide(np.abs(leads), dual, out=np.full(dual.shape, np.inf), where=dual > 0)
    best = distances.argmin(axis=1)
    at = np.arange(len(best)), best
    # A step longer than the box is wide says no more than its direction does.
    length = np.minimum(distances[at], longest) + STABILITY
    direction = np.sign(flat[at]) if norm == "linf" else flat[at] / np.maximum(dual[at], 1e-300)[:, None]
    steps = length[:, None] * direction
    return steps.reshape(len(best), *gradients.shape[2:]).astype(np.float32)
