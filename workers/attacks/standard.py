"""AutoAttack's bundles: several attacks, each on what the ones before have left."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.apgd import APGD
from workers.attacks.base import Attack
from workers.attacks.fab import FAB
from workers.attacks.square import Square

_RESTARTS = 5  # of the untargeted members of `plus`


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Standard(Attack):
    """Parameter-free attacks one after another, each on the survivors; the result says which broke what.

    `version`, as AutoAttack has them, in the order in which they run:

    - `standard`: apgd-ce (APGD with the cross-entropy), apgd-t, fab-t, square;
    - `plus`: apgd-ce, apgd-dlr and the untargeted fab with 5 restarts each, square, apgd-t, fab-t;
    - `rand`, for randomised victims: apgd-ce and apgd-dlr, whose gradients are those of the expectation over
      the victim's randomness; the others stand on single answers.

    Each member has its own random numbers, as when it is called alone: what breaks an example alone breaks
    it here. Whatever `choose` says, an example that one of them has broken is left alone by the next. Where
    no gradient flows, the members that need one are passed over, which is flagged, and Square runs. `steps`
    are those of all members but Square, `targeted_classes` those of apgd-t and fab-t, `queries` Square's.
    Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free
    Attacks" (arXiv:2003.01690); defaults as AutoAttack's.
    """

    name: ClassVar[str] = "standard"
    VERSION: ClassVar[int] = 2
    randomised: ClassVar[bool] = True

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: Annotated[int, Field(ge=1)] = 100
    targeted_classes: Annotated[int, Field(ge=1)] = 9
    queries: Annotated[int, Field(ge=1)] = 5000

    def members(self) -> dict[str, Attack]:
        """The attacks of the bundle by their names in results, in the order in which they run."""
        norm, steps, classes = self.norm, self.steps, self.targeted_classes
        restarts = _RESTARTS if self.version == "plus" else 1
        members: dict[str, Attack] = {
            "apgd-ce": APGD(norm=norm, steps=steps, restarts=restarts),
            "apgd-dlr": APGD(norm=norm, steps=steps, restarts=restarts, loss="dlr"),
            "fab": FAB(norm=norm, steps=steps, restarts=restarts, targeted_classes=0),
            "square": Square(norm=norm, queries=self.queries),
            "apgd-t": APGD(norm=norm, steps=steps, restarts=1, targeted_classes=classes),
            "fab-t": FAB(norm=norm, steps=steps, targeted_classes=classes),
        }
        return {name: members[name] for name in _ORDERS[self.version]}

    def search(self, rows: ActiveSet) -> None:
        rows.found.members = np.full(rows.found.success.shape, None, object)
        for name, member in self.members().items():
            rows.randomness = rows.randomness.of(member.name)
            member.run(rows)
            rows.found.members[rows.found.success & (rows.found.members == None)] = name  # noqa: E711
            rows.leave_successes()
            if not len(rows):
                return


_ORDERS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
