"""The fast gradient sign method, and the fast gradient method in L2."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import ascend
from workers.attacks.base import Attack


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class FGSM(Attack):
    """One step of length epsilon along the gradient at the clean image.

    One gradient an example serves all epsilons; each costs one forward pass more. Goodfellow, Shlens and
    Szegedy, "Explaining and Harnessing Adversarial Examples" (arXiv:1412.6572). The cross-entropy is that of
    `workers.losses`, which the scale of a model's logits does not matter to; with `like="foolbox"` it is that
    of the logits as they are, for the same images as Foolbox's `LinfFastGradientAttack` and
    `L2FastGradientAttack`.
    """

    name: ClassVar[str] = "fgsm"
    VERSION: ClassVar[int] = 3
    choose_matters: ClassVar[bool] = False

    targeted: bool = False
    like: Literal["foolbox"] | None = None

    def search(self, rows: ActiveSet) -> None:
        loss = "raw_cross_entropy" if self.like else "cross_entropy"
        ascend(rows, steps=1, step_sizes=rows.epsilons, loss=loss)
