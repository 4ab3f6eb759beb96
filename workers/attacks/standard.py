"""AutoAttack's bundle: four attacks, each on what the ones before have left."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.apgd import APGD
from workers.attacks.base import Attack
from workers.attacks.fab import FAB
from workers.attacks.square import Square


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Standard(Attack):
    """APGD with the cross-entropy, APGD-T, FAB-T and Square, in this order, on the survivors.

    Each has its own random numbers, as when it is called alone: what breaks an example alone breaks it here.
    Whatever `choose` says, an example that one of them has broken is left alone by the next. `steps` are
    those of the first three, `targeted_classes` those of APGD-T and FAB-T, `queries` Square's. Croce and
    Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks"
    (arXiv:2003.01690); defaults as AutoAttack's.
    """

    name: ClassVar[str] = "standard"
    randomised: ClassVar[bool] = True

    steps: Annotated[int, Field(ge=1)] = 100
    targeted_classes: Annotated[int, Field(ge=1)] = 9
    queries: Annotated[int, Field(ge=1)] = 5000

    def members(self) -> tuple[Attack, ...]:
        """The attacks of the bundle, in the order in which they run."""
        return (
            APGD(norm=self.norm, steps=self.steps),
            APGD(norm=self.norm, steps=self.steps, targeted_classes=self.targeted_classes),
            FAB(norm=self.norm, steps=self.steps, targeted_classes=self.targeted_classes),
            Square(norm=self.norm, queries=self.queries),
        )

    def search(self, rows: ActiveSet) -> None:
        for member in self.members():
            rows.randomness = rows.randomness.of(member.name)
            member.search(rows)
            rows.leave_successes()
            if not len(rows):
                return
