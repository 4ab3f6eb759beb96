"""The basic iterative method."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import ascend
from workers.attacks.base import Attack

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class BIM(Attack):
    """`steps` small steps along the gradient, each projected to the ball and the box.

    `relative_step_size` is a share of epsilon; `step_size`, absolute on the [0, 1] scale, overrides it.
    Kurakin, Goodfellow and Bengio, "Adversarial Examples in the Physical World" (arXiv:1607.02533);
    defaults and, with `choose="last"`, images as Foolbox's `LinfBasicIterativeAttack` and
    `L2BasicIterativeAttack`.
    """

    name: ClassVar[str] = "bim"
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"step_size"})

    steps: Annotated[int, Field(ge=1)] = 10
    relative_step_size: Positive = 0.2
    step_size: Positive | None = None

    def search(self, rows: ActiveSet) -> None:
        if self.step_size is None:
            step_sizes = self.relative_step_size * rows.epsilons
        else:
            step_sizes = np.full_like(rows.epsilons, self.step_size)
        ascend(rows, steps=self.steps, step_sizes=step_sizes)
