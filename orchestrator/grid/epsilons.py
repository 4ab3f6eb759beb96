"""The epsilons of a grid, by norm and dataset, moved to the [0, 1] scale."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from orchestrator.grid.checker import Checker, kind, show
from orchestrator.grid.entries import EpsilonList
from orchestrator.grid.numbers import PixelRange, exact, number_text
from workers.norms import NORMS

_LEVELS = 255  # of an 8-bit pixel, above black
_LARGEST_LINF = Fraction(16, 255)  # beyond what is usual in linf; 36/255 and 128/255 are usual in l2


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
            value = exact(raw) / self.pixel_range.width
        except ValueError as error:
            self.check.problem(str(error))
            return None
        if _is_fraction(raw) and self.pixel_range.width != 1:
            self._warn_of_scale(raw.strip(), value)
        return float(value)

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
                    self.check.problem(f"epsilon {value} {too_wide(exact(value), self.pixel_range)}")
                elif epsilon in found:
                    self.check.problem(f"epsilon {value} stands here twice")
                else:
                    found.append(epsilon)
                    if _is_fraction(value):
                        self._warn_of_fraction(value.strip(), epsilon, norm)
        return tuple(sorted(found))

    def _warn_of_fraction(self, value: str, epsilon: Fraction, norm: str) -> None:
        """Of an epsilon written as n/255 where that is seldom what was meant."""
        if self.pixel_range.width != 1:
            self._warn_of_scale(f"epsilon {value}", epsilon)
        elif norm == "l2" and 0 < epsilon <= _LARGEST_LINF:
            self.warnings.append(
                f"l2 epsilon {value} is tiny: it bounds the length of the whole change, not that of a pixel; "
                f"n/255 is usually meant for linf, and 0.5 is usual in l2 for CIFAR-10"
            )

    def _warn_of_scale(self, value: str, on_unit: Fraction) -> None:
        self.warnings.append(
            f"{value} is written on the pixel range {self.pixel_range}: it is {number_text(on_unit)} on the "
            f"[0, 1] scale, where {value.rpartition(' ')[2]} is usually meant"
        )


def too_wide(written: Fraction, scale: PixelRange, *, spelt: str = "pixel_range: [{}, {}]") -> str:
    """What is said of a linf epsilon that is wider than the pixel range it is written on, and what was
    probably meant; `spelt` is how another range is asked for."""
    meant = ""
    if written.denominator == 1 and 2 <= written <= _LEVELS:
        fraction = f"{written}/{_LEVELS}, or " if scale.width == 1 else ""
        meant = f"did you mean {fraction}{spelt.format(0, _LEVELS)}? "
    return (
        f"is more than the pixel range {scale} is wide; {meant}at most {number_text(scale.width)} is allowed"
    )


def _is_fraction(raw: Any) -> bool:
    """Whether a pixel quantity is written as n/255."""
    return isinstance(raw, str) and raw.strip().endswith("/255")
