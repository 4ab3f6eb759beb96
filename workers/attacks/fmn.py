"""FMN: gradient steps inside a ball whose radius follows the boundary."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workers.attacks.annealing import cosine
from workers.attacks.ascent import Positive
from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest
from workers.norms import L2

_LAST_GAMMA = 0.001


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class FMN(MinimumNorm):
    """`steps` along the margin's gradient, each projected to a ball around the clean image and to the box.

    Until the first success the radius is the estimated distance to the boundary, the margin over the
    gradient's dual norm; then it shrinks by the share `gamma` after an iterate that succeeds, to the nearest
    one's distance at most, and grows by it after one that does not. `gamma` falls to 0.001 along a cosine.
    A step is the steepest in the attack's norm; its length falls along a cosine from the radius to a
    hundredth of it. Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints"
    (arXiv:2102.12827).

    `max_step_size` gives the paper's steps, also Foolbox's at 1: along the gradient itself in either norm,
    of that length in L2 on the [0, 1] scale, falling to `min_step_size`, by default a hundredth of it. In
    linf they hardly move the many pixels whose gradient is small, and end far away on a robust network
    (`docs/attacks.md`). Other defaults as Foolbox's `L2FMNAttack` and `LInfFMNAttack`, the former of which
    does not project at all. The last iterate is looked at too. An example whose clean image has no gradient
    at all is given up at once.
    """

    name: ClassVar[str] = "fmn"
    VERSION: ClassVar[int] = 2
    NORMS: ClassVar[tuple[str, ...]] = ("l2", "linf")
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"max_step_size", "min_step_size"})

    norm: Literal["linf", "l2"] = "l2"
    steps: Annotated[int, Field(ge=1)] = 100
    max_step_size: Positive | None = None
    min_step_size: Positive | None = None
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    targeted: bool = False

    @model_validator(mode="after")
    def _both_ends_of_the_steps(self) -> FMN:
        if self.min_step_size is not None and self.max_step_size is None:
            raise ValueError("found min_step_size without max_step_size; both, or the latter, are allowed")
        return self

    def find(self, nearest: Nearest) -> None:
        norm = nearest.norm
        rows = np.arange(len(nearest))
        iterates = nearest.clean
        farthest = norm.distance(nearest.clean, np.rint(1 - nearest.clean)).astype(np.float64)
        radius = np.full(len(nearest), np.inf)
        loss = "targeted_margin" if nearest.targeted else "margin"
        first = self.max_step_size or 1.0
        last = self.min_step_size or first / 100
        for step in range(self.steps):
            logits, margins, gradients = nearest.gradients(rows, iterates, loss)
            success = nearest.offer(rows, iterates, logits)
            # Without any gradient at the clean image every later step is the same.
            going = gradients.any(axis=(1, 2, 3)) | (iterates != nearest.clean[rows]).any(axis=(1, 2, 3))
            if not going.any():
                return
            gamma = cosine(self.gamma, _LAST_GAMMA, step, self.steps)
            slopes = norm.dual(gradients)
            ahead = np.divide(np.abs(margins), slopes, out=np.full(len(rows), np.inf), where=slopes > 0)
            boundary = norm.distance(nearest.clean[rows], iterates) + ahead
            distance = nearest.distance[rows]
            # The box can undo what the estimate adds: without the growth the radius may stand still for good.
            grown = np.where(np.isfinite(radius[rows]), radius[rows] * (1 + gamma), 0)
            outside = np.where(np.isfinite(distance), grown, np.maximum(grown, boundary))
            inside = np.minimum(radius[rows] * (1 - gamma), distance)
            radius[rows] = np.minimum(np.where(success, inside, outside), farthest[rows])
            rows, iterates, gradients = rows[going], iterates[going], gradients[going]
            limit = radius[rows].astype(np.float32)[:, None, None, None]
            size = np.float32(cosine(first, last, step, self.steps))
            if self.max_step_size is None:
                moved = iterates + size * limit * norm.direction(gradients)
            else:
                moved = iterates + size * L2.direction(gradients)
            iterates = norm.project(moved, nearest.clean[rows], limit)
        nearest.offer(rows, iterates, nearest.logits(rows, iterates))
