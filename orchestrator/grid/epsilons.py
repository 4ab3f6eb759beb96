"""The epsilons of a grid, by norm and dataset, moved to the [0, 1] scale."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from orchestrator.grid.checker import Checker, kind, show
from orchestrator.grid.entries import EpsilonList
from orchestrator.grid.numbers import PixelRange, exact, number_text
from workers.norms import NORMS


class EpsilonParser:
    """Reads pixel quantities as written on the grid's pixel range, noting problems with `check`."""

    def __init__(self, check: Checker, raw_range: Any) -> None:
        self.check = check
        self.warnings: list[str] = []
        self.pixel_range = self._pixel_range(raw_range)

    def _pixel_range(self, raw: Any) -> PixelRange:
        with self.check.at("pixel_range"):
            try:
                low, high = (exact(value) for value in raw)
                if low < high:
                    return PixelRange(low, high)
            except (TypeError, ValueError):
                pass
            self.check.problem(f"found {show(raw)}; two numbers, low then high, such as [-1, 1], are allowed")
        return PixelRange()

    def pixels(self, raw: Any) -> float | None:
        """A pixel quantity, moved to the [0, 1] scale."""
        try:
            return float(exact(raw) / self.pixel_range.width)
        except ValueError as error:
            self.check.problem(str(error))
            return None

    def shared(self, raw: Any, datasets: Sequence[str]) -> dict[str, dict[str, EpsilonList]]:
        if raw is None:
            return {}
        with self.check.at("epsilons"):
            if isinstance(raw, dict):
                result = {}
                for norm, value in raw.items():
                    with self.check.at(norm):
                        if norm in NORMS:
                            result[norm] = self.by_dataset(value, norm, datasets)
                        else:
                            self.check.unknown("norm", norm, NORMS)
                return result
            return {"linf": self.by_dataset(raw, "linf", datasets)}

    def by_dataset(self, raw: Any, norm: str, datasets: Sequence[str]) -> dict[str, EpsilonList]:
        if not isinstance(raw, dict):
            values = self._epsilon_list(raw, norm)
            return dict.fromkeys(datasets, values)
        result = {}
        for dataset, value in raw.items():
            with self.check.at(dataset):
                if dataset not in datasets:
                    self.check.unknown("dataset of this grid", dataset, datasets)
                result[dataset] = self._epsilon_list(value, norm)
        return result

    def _epsilon_list(self, raw: Any, norm: str) -> EpsilonList:
        if isinstance(raw, int | float | str) and not isinstance(raw, bool):
            raw = [raw]
        if not isinstance(raw, list):
            self.check.problem(f"found {kind(raw)}; a list of epsilons is allowed")
            return ()
        if not raw:
            self.check.problem("the list is empty; at least one epsilon is needed")
        found: list[Fraction] = []
        width = self.pixel_range.width
        for i, value in enumerate(raw):
            with self.check.at(i):
                try:
                    epsilon = exact(value) / width
                except ValueError as error:
                    self.check.problem(str(error))
                    continue
                if epsilon < 0:
                    self.check.problem(f"epsilon {value} is negative; 0 or more is allowed")
                elif norm == "linf" and epsilon > 1:
                    self.check.problem(
                        f"epsilon {value} is more than the pixel range {self.pixel_range} is wide; "
                        f"at most {number_text(width)} is allowed"
                    )
                elif epsilon in found:
                    self.check.problem(f"epsilon {value} stands here twice")
                else:
                    found.append(epsilon)
                    if width != 1 and isinstance(value, str) and value.strip().endswith("/255"):
                        self.warnings.append(
                            f"epsilon {value} is written on the pixel range {self.pixel_range}: it is "
                            f"{number_text(epsilon)} on the [0, 1] scale, where {value} is usually meant"
                        )
        return tuple(sorted(found))
