"""What a transfer measures: images that were made against one victim, judged by another's answers."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from workers.flags import Flag
from workers.measure import Clock, FullBudget, Measurement
from workers.norms import Images
from workers.unit import Evaluation, Transfer
from workers.victims.victim import Victim

_OF_THE_ATTACK = (Flag.ZERO_GRADIENTS, Flag.NON_FINITE_GRADIENTS)
"""What is said of images that were made blindly, whoever they are tried on."""


def made_against(source: Victim, unit: Transfer, targets: list[Victim], clock: Clock) -> FullBudget:
    """The images of a transfer, of every example whose clean image any of the targets answers rightly.

    What the source answers to it does not matter: the attack raises the loss of the label all the same.
    """
    with clock.phase("clean"):
        right = [victim.clean(unit.start, unit.stop).mostly for victim in targets]
    examples = np.flatnonzero(np.logical_or.reduce(right))
    cells = tuple(("", epsilon) for epsilon in unit.epsilons)
    own = Evaluation("", unit.victim, unit.attack, cells, unit.start, unit.stop)
    return Measurement(own, source, clock).full_budget(examples)


class Tried(Measurement):
    """One target of a transfer: a row for each of its cells and examples, as of an attack on it.

    Success is what it is anywhere: an image in the box and within epsilon that this victim, who was right,
    answers wrongly. No call is counted: the victim was asked for nothing but its verdict.
    """

    claims: ClassVar[bool] = False

    def __init__(self, unit: Evaluation, victim: Victim, clock: Clock, made: FullBudget) -> None:
        super().__init__(unit, victim, clock)
        self._made = made

    def _attack(self, attacked: NDArray[np.int64], images: Images) -> None:
        made = self._made
        places = np.searchsorted(made.examples, attacked)
        levels = [made.epsilons.index(epsilon) for epsilon in self._epsilons]
        found = made.images[levels][:, places]
        targets = None if made.targets is None else made.targets[places]
        with self._clock.phase("measure"):
            self._measure(attacked, images, found, np.ones(found.shape[:2], bool), targets, None)
        if targets is not None:
            self._columns["target"][:, attacked] = targets
        everywhere = np.ones(len(attacked), bool)
        self._flag({fault: everywhere for fault in self._victim.network.health(images).faults}, attacked)
        self._flag(
            {name: made.flags[name][places] for name in _OF_THE_ATTACK if name in made.flags}, attacked
        )
