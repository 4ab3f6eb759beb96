"""Everything that a report is made of, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from orchestrator.results.choice import made_of
from orchestrator.results.compare import pairs_compared
from orchestrator.results.display import Cell, Texts, display
from orchestrator.results.judged import in_order_of_grids
from orchestrator.results.pairing import Outcome, outcomes
from orchestrator.results.per_class import ByClass
from orchestrator.results.query import connect
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Place, RobustnessTable
from orchestrator.results.visible import OF_VISIBLE, Visible, visible_in
from orchestrator.store.folder import Run, Store

_VIEWS = (
    "cells",
    "worst_case",
    "checks",
    "victims",
    "history",
    "failures",
    "strengthened",
    "transfer",
    "certified_accuracy",
    "attacks",
)


@dataclass(frozen=True)
class Facts:
    """What some output folders hold, as of one moment."""

    stores: Mapping[str, Store]  # by what the sweeps are called
    results: Sequence[Results]
    warnings: Sequence[str]  # what does not count, and why
    views: Mapping[str, pa.Table]  # the views of SQL that a report shows, cells in the order of their grids
    known: Mapping[Place, Outcome]
    tables: Sequence[RobustnessTable]  # of robust accuracy, the best of each told
    visible: Visible  # how visible full-budget images are
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def runs(self) -> Mapping[str, Sequence[Run]]:
        """The runs into each folder, oldest first."""
        return {sweep: store.runs() for sweep, store in self.stores.items()}

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """Every two victims held against each other (`results.compare.pairs_compared`)."""
        return pairs_compared(self.views["cells"], self.views["worst_case"], self.known)

    @cached_property
    def victims(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """The victims of the grids by sweep and id, in their order: a cell of each, and its `texts`."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for cell in self.rows("cells"):
            if (key := (cell["sweep"], cell["victim_id"])) not in found:
                found[key] = {**cell, "texts": self._texts(cell)}
        return found

    @cached_property
    def by_class(self) -> ByClass:
        """Numbers of the tables class by class."""
        cells = {(cell["sweep"], cell["cell_id"]): cell for cell in self.rows("cells")}
        return ByClass(self.results, cells, self.known)

    @cached_property
    def attacks(self) -> Mapping[tuple[str, str], str]:
        """What people read of each attack, by sweep and id."""
        cells = {(cell["sweep"], cell["attack_id"]): cell for cell in self.rows("cells")}
        return {key: self._texts(cell).attack for key, cell in cells.items()}

    @cached_property
    def _texts(self) -> Callable[[Cell], Texts]:
        return display(self.rows("cells"))

    def of(self, sweep: str) -> Results:
        """What a sweep holds."""
        return next(one for one in self.results if one.sweep == sweep)

    def rows(self, view: str) -> list[dict[str, Any]]:
        """The rows of a view, to be looked at only."""
        if view not in self._rows:
            self._rows[view] = self.views[view].to_pylist()
        return self._rows[view]


def gather(stores: Mapping[str, Store], results: Sequence[Results], warnings: Sequence[str]) -> Facts:
    """Read what a report needs from folders and what they hold (`store.locate.read_results`)."""
    with connect(results, named={*_VIEWS, *OF_VISIBLE}) as connection:
        tables = {view: connection.sql(f"FROM {view}").to_arrow_table() for view in _VIEWS}
        visible = visible_in(connection)
    views = {view: in_order_of_grids(view, table, results) for view, table in tables.items()}
    known = outcomes(results)
    made = made_of(views["cells"], views["worst_case"], known)
    return Facts(stores, results, warnings, views, known, made, visible)
