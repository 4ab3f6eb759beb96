"""Projected gradient descent: the basic iterative method from random starts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import Positive, ascend, sizes
from workers.attacks.base import Attack

_RELATIVE_STEP_SIZE = {"linf": 0.01 / 0.3, "l2": 0.025}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class PGD(Attack):
    """`steps` along the gradient from a point drawn uniformly from the ball, `restarts` times.

    A restart tries only what has held so far. `relative_step_size` is a share of epsilon, by default 1/30
    (linf) or 1/40 (l2); `step_size`, absolute on the [0, 1] scale, overrides it. Madry et al., "Towards Deep
    Learning Models Resistant to Adversarial Attacks" (arXiv:1706.06083); defaults as Foolbox's
    `LinfProjectedGradientDescentAttack`, its step size also in `L2ProjectedGradientDescentAttack`.
    """

    name: ClassVar[str] = "pgd"
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"step_size"})
    randomised: ClassVar[bool] = True

    steps: Annotated[int, Field(ge=1)] = 40
    relative_step_size: Positive | None = None
    step_size: Positive | None = None
    random_start: bool = True
    restarts: Annotated[int, Field(ge=1)] = 1
    targeted: bool = False

    def search(self, rows: ActiveSet) -> None:
        relative = self.relative_step_size or _RELATIVE_STEP_SIZE[self.norm]
        # Without a random start every restart would repeat the first.
        restarts = self.restarts if self.random_start else 1
        for restart in range(restarts):
            ascend(
                rows,
                steps=self.steps,
                step_sizes=sizes(rows, relative, self.step_size),
                start=rows.random_start(restart) if self.random_start else None,
                final=restart == restarts - 1,
            )
