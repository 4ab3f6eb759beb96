"""DDN: the direction of the change is learnt by gradients, its length by success and failure."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.annealing import cosine
from workers.attacks.ascent import Positive
from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest
from workers.norms import L2

_STEP_SIZE = 1.0, 0.01
"""The first and the last step, L2 on the [0, 1] scale."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class DDN(MinimumNorm):
    """`steps` along the cross-entropy's gradient, each put back on a sphere around the clean image.

    The sphere's radius, `init_epsilon` at first (L2, [0, 1] scale), shrinks by the share `gamma` after an
    iterate that succeeds and grows by it after one that does not; the size of a step falls along a cosine.
    Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
    Defenses" (arXiv:1811.09600); defaults and step sizes as Foolbox's `DDNAttack`, which does not look at
    the last iterate. An example whose clean image has no gradient at all is given up at once.
    """

    name: ClassVar[str] = "ddn"
    VERSION: ClassVar[int] = 2
    NORMS: ClassVar[tuple[str, ...]] = ("l2",)
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"init_epsilon"})

    norm: Literal["l2"] = "l2"
    steps: Annotated[int, Field(ge=1)] = 100
    init_epsilon: Positive = 1.0
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.05
    targeted: bool = False

    def find(self, nearest: Nearest) -> None:
        rows = np.arange(len(nearest))
        iterates = nearest.clean
        farthest = L2.distance(nearest.clean, np.rint(1 - nearest.clean))
        radius = np.full(len(nearest), self.init_epsilon)
        for step in range(self.steps):
            logits, _, gradients = nearest.gradients(rows, iterates)
            success = nearest.offer(rows, iterates, logits)
            step_size = np.float32(cosine(*_STEP_SIZE, step, self.steps))
            moved = iterates + step_size * L2.direction(gradients)
            # Without any gradient at the clean image there is no direction to learn, now or later.
            going = (moved != nearest.clean[rows]).any(axis=(1, 2, 3))
            rows, moved, success = rows[going], moved[going], success[going]
            if not len(rows):
                return
            factor = np.where(success, 1 - self.gamma, 1 + self.gamma)
            radius[rows] = np.minimum(radius[rows] * factor, farthest[rows])
            size = radius[rows].astype(np.float32)[:, None, None, None]
            iterates = L2.sphere(moved, nearest.clean[rows], size)
        nearest.offer(rows, iterates, nearest.logits(rows, iterates))
