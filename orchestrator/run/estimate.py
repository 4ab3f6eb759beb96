"""How long the rest of a sweep will take. Attacks differ a hundredfold: each has a rate of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Estimate:
    """From what is left of each attack, by id, in examples × epsilons. It is only as good as the past."""

    def __init__(self, left: Mapping[str, int] | None = None) -> None:
        self._left = Counter(left)
        self._rates: dict[str, tuple[float, int]] = {}  # attack -> seconds of one worker, and rows they took

    def done(self, attack_id: str, rows: int, seconds: float) -> None:
        """A unit of so many rows took one worker so long."""
        self._left[attack_id] -= rows
        spent, before = self._rates.get(attack_id, (0.0, 0))
        self._rates[attack_id] = spent + seconds, before + rows

    def dropped(self, left: Mapping[str, int]) -> None:
        """What failed will never be done, and is not time left."""
        self._left.subtract(left)

    def seconds(self, workers: int) -> float | None:
        """With so many workers at it; None before any unit is done, and without workers.

        An attack that no unit is done of yet counts as the mean of those that are known.
        """
        known = {attack: spent / rows for attack, (spent, rows) in self._rates.copy().items() if rows}
        if not known or not workers:
            return None
        mean = sum(known.values()) / len(known)
        left = self._left.copy().items()
        return sum(rows * known.get(attack, mean) for attack, rows in left) / workers
