"""The basic iterative method."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.ascent import Positive, ascend, sizes
from workers.attacks.base import Attack


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class BIM(Attack):
    """`steps` small steps along the gradient, each projected to the ball and the box.

    `relative_step_size` is a share of epsilon; `step_size`, absolute on the [0, 1] scale, overrides it.
    Kurakin, Goodfellow and Bengio, "Adversarial Examples in the Physical World" (arXiv:1607.02533);
    defaults as Foolbox's `LinfBasicIterativeAttack` and `L2BasicIterativeAttack`; with `like="foolbox"` the
    cross-entropy too is that of the logits as they are, and with `choose="last"` the images are the same.
    """

    name: ClassVar[str] = "bim"
    VERSION: ClassVar[int] = 3
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"step_size"})

    steps: Annotated[int, Field(ge=1)] = 10
    relative_step_size: Positive = 0.2
    step_size: Positive | None = None
    targeted: bool = False
    like: Literal["foolbox"] | None = None

    def search(self, rows: ActiveSet) -> None:
        step_sizes = sizes(rows, self.relative_step_size, self.step_size)
        ascend(rows, steps=self.steps, step_sizes=step_sizes, loss="raw_cross_entropy" if self.like else None)
