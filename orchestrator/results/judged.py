"""Views as tables, each sweep's judged by itself and in the order of its grid."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.query import Several, connect
from orchestrator.results.schemas import Results


def cells_table(results: Several) -> pa.Table:
    """The `cells` view (see `orchestrator.results.views.CELLS`) as a table, its rows in the order of sweeps
    and of their grids: model, dataset, defence, seed, attack, as the grid lists them, then epsilon,
    ascending."""
    return _judged(results, "cells")[0]


def cells_and_worst_cases(results: Several) -> tuple[pa.Table, pa.Table]:
    """`cells_table`, and the `worst_case` view as a table."""
    cells, worst = _judged(results, "cells", "worst_case")
    return cells, worst


def transfer_table(results: Several) -> pa.Table:
    """The `transfer` view as a table, in the order of the grids."""
    return _judged(results, "transfer")[0]


def certified_table(results: Several) -> pa.Table:
    """The `certified_accuracy` view as a table, in the order of the grids, epsilon ascending."""
    return _judged(results, "certified_accuracy")[0]


def judged_tables(results: Several) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table, pa.Table]:
    """The views `cells`, `worst_case`, `transfer`, `certified_accuracy` and `checks` as tables."""
    cells, worst, transfer, certified, checks = _judged(
        results, "cells", "worst_case", "transfer", "certified_accuracy", "checks"
    )
    return cells, worst, transfer, certified, checks


def _judged(results: Several, *views: str) -> list[pa.Table]:
    """Views as tables, each sweep's by itself and in the order of its grid."""
    found: list[list[pa.Table]] = []
    for one in [results] if isinstance(results, Results) else results:
        with connect(one, named=views) as connection:
            tables = {view: connection.sql(f"FROM {view}").to_arrow_table() for view in views}
        if "certified_accuracy" in tables:
            tables["certified_accuracy"] = tables["certified_accuracy"].sort_by("epsilon")
        for view in _ORDERED.keys() & tables:
            tables[view] = _in_order(tables[view], getattr(one, _ORDERED[view]))
        found.append(list(tables.values()))
    return [pa.concat_tables(tables) for tables in zip(*found, strict=True)]


def _in_order(cells: pa.Table, wanted: pa.Table) -> pa.Table:
    return cells.take(pc.sort_indices(pc.index_in(cells["cell_id"], value_set=wanted["cell_id"])))


_ORDERED = {"cells": "wanted", "transfer": "transfers", "certified_accuracy": "certificates"}
"""Views whose rows have an order, and what it is that of."""


def in_order_of_grids(view: str, table: pa.Table, results: Sequence[Results]) -> pa.Table:
    """The rows of a view of several sweeps in the order of these and of their grids, epsilon ascending."""
    if view not in _ORDERED:
        return table
    found = []
    for one in results:
        own = table.filter(pc.equal(table["sweep"], one.sweep)).sort_by("epsilon")
        found.append(_in_order(own, getattr(one, _ORDERED[view])))
    return pa.concat_tables(found)
