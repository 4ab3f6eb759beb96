"""What the attacks share that look for the nearest adversarial image instead of searching a ball."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.base import Attack
from workers.attacks.nearest import Nearest


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class MinimumNorm(Attack):
    """One search an example serves every epsilon; subclasses define `find`.

    `refine`: end with bisection towards the clean image.
    """

    minimum_norm: ClassVar[bool] = True
    choose_matters: ClassVar[bool] = False  # there is one nearest image

    refine: bool = True

    @abstractmethod
    def find(self, nearest: Nearest) -> None:
        """Look for adversarial images of all rows, passing candidates in the box to `nearest.offer`."""

    def search(self, rows: ActiveSet) -> None:
        nearest = Nearest(rows)
        if not len(nearest):
            return
        self.find(nearest)
        if self.refine:
            nearest.refine()
        nearest.settle()
