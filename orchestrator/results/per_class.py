"""Accuracy class by class: of any number that robustness tables have, from the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.kept import class_names
from orchestrator.results.pairing import outcomes
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, Place, Row
from orchestrator.results.wilson import wilson

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
"""Rows of the view `cells`, by sweep and cell id."""


class Shares(NamedTuple):
    """What a number comes to in each of K classes; means over training seeds, as intervals are."""

    names: tuple[str, ...]  # (K,) what the classes are called; their numbers where nobody says
    n: NDArray[np.int64]  # (K,) test images of the class
    clean: NDArray[np.float64]  # (K,) the share that is right without an attack; NaN without images
    robust: NDArray[np.float64]  # (K,) and under it
    low: NDArray[np.float64]  # (K,) the ends of its 95% Wilson interval, for the sampling of test images
    high: NDArray[np.float64]


class ByClass:
    """Numbers of tables, class by class."""

    def __init__(self, results: Sequence[Results], cells: Cells) -> None:
        self._results = {one.sweep: one for one in results}
        self._cells = cells
        self._outcomes = outcomes(results)
        self._labels: dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}

    def shares(self, row: Row, entry: Entry) -> Shares | None:
        """Of a number of a row; None where there is none to show, be it missing, incomplete or wrong."""
        if entry.mark or not entry.places:
            return None
        names: tuple[str, ...] = ()
        parts = []
        for place in entry.places:
            cell = self._cell(row, place)
            label, correct = self._known(place.sweep, cell)
            names = names or class_names(
                self._results[place.sweep], self._cells[place.sweep, cell]["victim_id"]
            )
            robust = self._outcomes[place].robust[: len(label)]
            classes = max(len(names), int(label.max()) + 1)
            n, clean, left = (
                np.bincount(label, weights=of, minlength=classes).astype(np.float64)
                for of in (None, correct, robust)
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(np.stack([clean / n, left / n, *_ends(left, n)]))
        clean, robust, low, high = np.mean(parts, axis=0)
        return Shares(names or tuple(map(str, range(len(n)))), n.astype(np.int64), clean, robust, low, high)

    def _cell(self, row: Row, place: Place) -> str:
        """A cell with the examples that a number is of."""
        if not place.norm:
            return place.of
        own = ((name, self._cells[row.sweep, name]) for name in row.cell_ids)
        return next(name for name, cell in own if cell["victim_id"] == place.of and cell["status"] == "done")

    def _known(self, sweep: str, cell: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """By position: the label, and whether the victim is right on the clean image."""
        if (sweep, cell) not in self._labels:
            within = pc.field("position") < self._cells[sweep, cell]["examples"]
            rows = self._results[sweep].examples.to_table(
                columns=["position", "label", "clean_correct"], filter=(pc.field("cell_id") == cell) & within
            )
            rows = rows.sort_by("position")
            self._labels[sweep, cell] = (
                rows["label"].to_numpy().astype(np.int64),
                rows["clean_correct"].to_numpy(),
            )
        return self._labels[sweep, cell]


def _ends(
    left: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ends = [wilson(k, int(of)) if of else (np.nan, np.nan) for k, of in zip(left, n, strict=True)]
    low, high = np.array(ends, np.float64).T
    return low, high
