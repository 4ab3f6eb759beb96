"""The basic iterative method: steps along the gradient from the clean image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import LossName, Positive, ascend, foolbox_has_one_loss, sizes
from workers.attacks.base import Attack

_FIRST_STEP = 1.0
_FOOLBOX_STEP = 0.2


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class BIM(Attack):
    """`steps` along the gradient, each clipped to the box and then projected to the ball.

    The first step is as long as epsilon, so that with the same loss whatever FGSM breaks is broken; the
    others fall along half a cosine towards 0. `relative_step_size`, a share of epsilon, or `step_size`,
    absolute on the [0, 1] scale and taken before the other, makes all of one size. `loss` is the
    cross-entropy, the `margin` of the logits or their difference ratio (`dlr`). Kurakin, Goodfellow and
    Bengio, "Adversarial Examples in the Physical World" (arXiv:1607.02533).

    `like: foolbox` gives, with `choose="last"`, the images of Foolbox's `LinfBasicIterativeAttack` and
    `L2BasicIterativeAttack`: steps of 0.2 of epsilon unless a size is given, and in L2 a projection that
    leaves a part of the radius unspent. Robust networks look more robust to it (`docs/attacks.md`).
    """

    name: ClassVar[str] = "bim"
    VERSION: ClassVar[int] = 3
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"step_size"})

    steps: Annotated[int, Field(ge=1)] = 10
    relative_step_size: Positive | None = None
    step_size: Positive | None = None
    loss: LossName = "cross_entropy"
    targeted: bool = False
    like: Literal["foolbox"] | None = None

    @model_validator(mode="after")
    def _loss_fits(self) -> BIM:
        foolbox_has_one_loss(self.like, self.loss)
        return self

    def search(self, rows: ActiveSet) -> None:
        usual = _FOOLBOX_STEP if self.like else _FIRST_STEP
        ascend(
            rows,
            steps=self.steps,
            step_sizes=sizes(rows, self.relative_step_size or usual, self.step_size),
            loss="raw_cross_entropy" if self.like else self.loss,
            falling=self.like is None and self.relative_step_size is None and self.step_size is None,
            whole_ball=self.like is None,
        )
