"""Random noise: the control that every attack must beat."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.base import Attack


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Noise(Attack):
    """Up to `repeats` points drawn uniformly from the ball of radius epsilon, clipped to the box."""

    name: ClassVar[str] = "noise"
    randomised: ClassVar[bool] = True
    by_gradients: ClassVar[bool] = False
    asks_model: ClassVar[bool] = False

    repeats: Annotated[int, Field(ge=1)] = 10

    def search(self, rows: ActiveSet) -> None:
        for repeat in range(self.repeats):
            if not len(rows):
                return
            iterates = rows.random_start(repeat)
            rows.judge(iterates, rows.logits(iterates), final=repeat == self.repeats - 1)
