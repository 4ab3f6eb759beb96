"""Accuracy class by class: of any number that robustness tables have, from the same examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.chosen import chosen, epsilon_of, no_epsilon
from orchestrator.results.kept import class_names
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.pairing import Outcome, outcomes
from orchestrator.results.reading import read_rows
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, Place, RobustnessTable, Row
from orchestrator.results.wilson import wilson

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
"""Rows of the view `cells`, by sweep and cell id."""


class Left(NamedTuple):
    """What a number comes to in each of K classes; means over training seeds, as intervals are."""

    names: tuple[str, ...]  # (K,) what the classes are called; their numbers where nobody says
    n: NDArray[np.int64]  # (K,) test images of the class
    robust: NDArray[np.float64]  # (K,) the share that is right under attack; NaN without images
    low: NDArray[np.float64]  # (K,) the ends of its 95% Wilson interval, for the sampling of test images
    high: NDArray[np.float64]


class Shares(NamedTuple):
    """The same, and what is right without an attack."""

    names: tuple[str, ...]
    n: NDArray[np.int64]
    clean: NDArray[np.float64]
    robust: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class ByClass:
    """Numbers of tables, class by class."""

    def __init__(
        self, results: Sequence[Results], cells: Cells, known: Mapping[Place, Outcome] | None = None
    ) -> None:
        """`known` is what `results.pairing.outcomes` knows of these results, where that has been asked."""
        self._results = {one.sweep: one for one in results}
        self._cells = cells
        self._outcomes = outcomes(results) if known is None else known
        self._known: dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}
        self._most: dict[tuple[str, str], str] = {}  # sweep and dataset -> a done cell with the most examples
        for (sweep, id), cell in cells.items():
            most = self._most.setdefault((sweep, cell["dataset"]), id)
            if _covers(cell) > _covers(cells[sweep, most]):
                self._most[sweep, cell["dataset"]] = id

    def left(self, row: Row, entry: Entry) -> Left | None:
        """Of a number of a row; None where there is none to show, be it missing, incomplete or wrong."""
        if entry.mark or not entry.places:
            return None
        names: tuple[str, ...] = ()
        parts = []
        for place in entry.places:
            cell = self._cell(row, place)
            of = self._cells[place.sweep, cell]
            names = names or class_names(self._results[place.sweep], of["victim_id"])
            robust = self._outcomes[place].robust
            # Of the labels of a dataset those of any cell are known.
            label = self._read(place.sweep, self._most[place.sweep, of["dataset"]])[0][: len(robust)]
            n, left = self._counts(label, names, None, robust[: len(label)])
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(np.stack([left / n, *_ends(left, n)]))
        robust, low, high = np.mean(parts, axis=0)
        return Left(names or tuple(map(str, range(len(n)))), n.astype(np.int64), robust, low, high)

    def shares(self, row: Row, entry: Entry) -> Shares | None:
        """The same, with the clean accuracy, which is of each victim's own rows."""
        if (left := self.left(row, entry)) is None:
            return None
        parts = []
        for place in entry.places:
            label, correct = self._read(place.sweep, self._cell(row, place))
            n, clean = self._counts(label, left.names, None, correct)
            with np.errstate(invalid="ignore", divide="ignore"):
                parts.append(clean / n)
        return Shares(left.names, left.n, np.mean(parts, axis=0), left.robust, left.low, left.high)

    @staticmethod
    def _counts(
        label: NDArray[np.int64], names: Sequence[str], *of: NDArray[np.bool_] | None
    ) -> list[NDArray[np.float64]]:
        """How many examples of each class there are (None), and of which something is so."""
        classes = max(len(names), int(label.max()) + 1)
        return [np.bincount(label, weights=one, minlength=classes).astype(np.float64) for one in of]

    def _cell(self, row: Row, place: Place) -> str:
        """A cell with the examples that a number is of."""
        if not place.norm:
            return place.of
        own = ((name, self._cells[row.sweep, name]) for name in row.cell_ids)
        return next(name for name, cell in own if cell["victim_id"] == place.of and cell["status"] == "done")

    def _read(self, sweep: str, cell: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """By position: the label, and whether the victim is right on the clean image."""
        if (sweep, cell) not in self._known:
            within = pc.field("position") < self._cells[sweep, cell]["examples"]
            rows = read_rows(
                self._results[sweep].examples,
                ["position", "label", "clean_correct"],
                (pc.field("cell_id") == cell) & within,
            )
            rows = rows.sort_by("position")
            self._known[sweep, cell] = (
                rows["label"].to_numpy().astype(np.int64),
                rows["clean_correct"].to_numpy(),
            )
        return self._known[sweep, cell]


def _covers(cell: Mapping[str, Any]) -> int:
    return int(cell["examples"]) if cell["status"] == "done" else 0


def _ends(
    left: NDArray[np.float64], n: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ends = [wilson(k, int(of)) if of else (np.nan, np.nan) for k, of in zip(left, n, strict=True)]
    low, high = np.array(ends, np.float64).T
    return low, high


CLASSES = pa.schema(
    [
        *((name, pa.string()) for name in ("sweep", "dataset", "norm", "model", "model_options", "recipe")),
        *((name, pa.string()) for name in ("defence", "attack", "attack_options")),
        ("adaptive", pa.bool_()),
        ("targeted", pa.bool_()),
        ("epsilon", pa.float64()),
        # As of a table's entry: done, partial, …; and what checks say. Without a number there is one row, of
        # no class.
        ("status", pa.string()),
        ("verdict", pa.string()),
        ("label", pa.int32()),
        ("class_name", pa.string()),  # its number where nobody says
        ("n", pa.int64()),  # test images of the class
        ("clean_accuracy", pa.float64()),
        ("accuracy", pa.float64()),  # under the attack; of a targeted one: right and not driven to the target
        ("low", pa.float64()),  # the ends of its 95% Wilson interval
        ("high", pa.float64()),
    ]
)
"""Numbers of robustness tables class by class, a row each; means over training seeds."""


def class_records(
    results: Sequence[Results], wanted: Mapping[str, Sequence[str]], epsilon: float | None = None
) -> tuple[pa.Table, list[tuple[RobustnessTable, Row]]]:
    """`CLASSES` of what is asked for at one epsilon, by default one in the middle of each table; and the row
    of a robustness table that each is of. Unless attacks are named, of the worst case where there is one."""
    found = chosen(results, wanted)
    at = [(table, one) for table in found.tables if (one := epsilon_of(table, epsilon)) is not None]
    if not at:
        raise no_epsilon(found.tables, epsilon or 0.0)
    by_class = ByClass(results, found.cells)
    records: list[dict[str, Any]] = []
    rows: list[tuple[RobustnessTable, Row]] = []
    for table, one in at:
        for row in _shown(table, named=bool(wanted.get("attack"))):
            if (entry := row.entries[table.epsilons.index(one)]) is None:
                continue
            said = {name: getattr(row, name) for name in CLASSES.names if hasattr(row, name)}
            of = {**said, "dataset": table.dataset, "norm": table.norm, "epsilon": one}
            of |= {"status": entry.status, "verdict": entry.verdict}
            own = list(_records(by_class.shares(row, entry)))
            records += [{**of, **record} for record in own]
            rows += [(table, row)] * len(own)
    return pa.Table.from_pylist(records, schema=CLASSES), rows


def _shown(table: RobustnessTable, *, named: bool) -> list[Row]:
    rows = [row for row in table.rows if row.attack != WITH_TRANSFER]  # whose examples nobody keeps apart
    worst = [row for row in rows if row.attack == WORST_CASE]
    return rows if named or not worst else worst


def _records(shares: Shares | None) -> Iterator[dict[str, Any]]:
    if shares is None:
        yield {"clean_accuracy": None}
        return
    for label, name in enumerate(shares.names):
        if n := int(shares.n[label]):
            yield {
                "label": label,
                "class_name": name,
                "n": n,
                "clean_accuracy": float(shares.clean[label]),
                "accuracy": float(shares.robust[label]),
                "low": float(shares.low[label]),
                "high": float(shares.high[label]),
            }
