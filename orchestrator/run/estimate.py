"""How long the rest of a sweep will take. Attacks differ a hundredfold: each has a rate of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import get_args

from workers.unit import Preparation

_TRAININGS = get_args(Preparation)


class Estimate:
    """From what is left of each kind of work, and what of it took how long. It is only as good as the past.

    Kinds are attacks, by id, in examples × epsilons; and trainings, by preparation, in victims, each as often
    as a step of its training takes a gradient.
    """

    def __init__(
        self, rows: Mapping[str, int] | None = None, trainings: Mapping[Preparation, int] | None = None
    ) -> None:
        self._work: Counter[str] = Counter(rows)
        self._work.update({str(kind): amount for kind, amount in (trainings or {}).items()})
        self._rates: dict[str, tuple[float, int]] = {}  # kind -> seconds of one worker, and what they did

    def done(self, kind: str, amount: int, seconds: float) -> None:
        """So much of a kind took one worker so long."""
        self.dropped({kind: amount})
        spent, before = self._rates.get(kind, (0.0, 0))
        self._rates[kind] = spent + seconds, before + amount

    def dropped(self, left: Mapping[str, int]) -> None:
        """What will not be done, as it failed or another run has done it, is not time left."""
        self._work.subtract(left)

    @property
    def complete(self) -> bool:
        """Whether something of all that is left has been done; else `seconds` is a lower bound."""
        return self._left().keys() <= self._known().keys()

    def expected(self, work: Mapping[str, int]) -> float | None:
        """How many seconds of one worker it takes; None where nothing is known of some of it."""
        seconds = 0.0
        for kind, amount in work.items():
            spent, done = self._rates.get(kind, (0.0, 0))
            if not done:
                return None
            seconds += amount * spent / done
        return seconds

    def seconds(self, workers: int, running: Iterable[tuple[Mapping[str, int], float]] = ()) -> float | None:
        """With so many workers at it; None before anything is known of an attack, and without workers.

        `running`: what is being done, which is left too, and for how many seconds. A kind takes at least as
        long as what runs has taken so far. An attack that nothing is known of counts as the cheapest of the
        others, a training as nothing.
        """
        under_way = [(kind, amount, since) for work, since in running for kind, amount in work.items()]
        left, known = self._left(), self._known()
        cheapest = min((rate for kind, rate in known.items() if kind not in _TRAININGS), default=None)
        if not workers or (cheapest is None and all(kind in _TRAININGS for kind, _, _ in under_way)):
            return None
        rates = {kind: 0.0 if kind in _TRAININGS else cheapest or 0.0 for kind in left} | known
        for kind, amount, since in under_way:
            if amount:
                rates[kind] = max(rates.get(kind, 0.0), since / amount)
        total = sum(amount * rates[kind] for kind, amount in left.items())
        longest = 0.0
        for kind, amount, since in under_way:
            takes = amount * rates.get(kind, 0.0)
            total -= min(since, takes)
            longest = max(longest, takes - since)
        return max(total / workers, longest)

    def _known(self) -> dict[str, float]:
        return {kind: spent / amount for kind, (spent, amount) in self._rates.copy().items() if amount}

    def _left(self) -> dict[str, int]:
        return {kind: amount for kind, amount in self._work.copy().items() if amount > 0}
