"""Projected gradient descent: steps along the gradient from random starts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import LossName, Positive, ascend, foolbox_has_one_loss, sizes
from workers.attacks.base import Attack

_FIRST_STEP = {"linf": 1.0, "l2": 2.0}
_FOOLBOX_STEP = {"linf": 0.01 / 0.3, "l2": 0.025}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class PGD(Attack):
    """`steps` along the gradient from a point drawn uniformly from the ball, `restarts` times.

    A restart tries only what has held so far. Steps fall along half a cosine, from epsilon (linf) or twice
    epsilon (l2) towards 0; `relative_step_size`, a share of epsilon, or `step_size`, absolute on the [0, 1]
    scale and taken before the other, makes all of one size. Each is clipped to the box and then
    projected to the ball. `loss` is the cross-entropy, the `margin` of the logits or their difference ratio
    (`dlr`). Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv:1706.06083).

    `like: foolbox` gives the images of Foolbox's `LinfProjectedGradientDescentAttack` and
    `L2ProjectedGradientDescentAttack` of as many `steps`, where Foolbox's own number is 50 in L2: steps of
    1/30 (linf) or 1/40 (l2) of epsilon unless a size is given, and in L2 a projection that leaves a part of
    the radius unspent. Robust networks look more robust to it than to BIM (`docs/attacks.md`).
    """

    name: ClassVar[str] = "pgd"
    VERSION: ClassVar[int] = 2
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"step_size"})
    randomised: ClassVar[bool] = True

    steps: Annotated[int, Field(ge=1)] = 40
    relative_step_size: Positive | None = None
    step_size: Positive | None = None
    loss: LossName = "cross_entropy"
    random_start: bool = True
    restarts: Annotated[int, Field(ge=1)] = 1
    targeted: bool = False
    like: Literal["foolbox"] | None = None

    @model_validator(mode="after")
    def _loss_fits(self) -> PGD:
        foolbox_has_one_loss(self.like, self.loss)
        return self

    def search(self, rows: ActiveSet) -> None:
        falling = self.like is None and self.relative_step_size is None and self.step_size is None
        usual = _FOOLBOX_STEP if self.like else _FIRST_STEP
        relative = self.relative_step_size or usual[self.norm]
        # Without a random start every restart would repeat the first.
        restarts = self.restarts if self.random_start else 1
        for restart in range(restarts):
            ascend(
                rows,
                steps=self.steps,
                step_sizes=sizes(rows, relative, self.step_size),
                loss="raw_cross_entropy" if self.like else self.loss,
                falling=falling,
                whole_ball=self.like is None,
                start=rows.random_start(restart) if self.random_start else None,
                final=restart == restarts - 1,
            )
