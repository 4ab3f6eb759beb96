"""Which attacks a table of their quality is to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError
from orchestrator.results.called import Called, Names, agreeing
from orchestrator.results.judged import in_order_of_grids
from orchestrator.results.query import Several, connect
from orchestrator.results.schemas import Results

_KEYS = ("dataset", "model", "defence", "attack")


def attacks_table(results: Several) -> pa.Table:
    """The `attacks` view as a table, in the order of the grids."""
    return _attacks_and_cells(results)[0]


def chosen_attacks(
    results: Several, wanted: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Rows of the view `attacks` that have one of the names that are `wanted` of `dataset`, `model`,
    `defence`, `attack` and `norm`, with what people call these; and as a table, as they are.

    UserError for a name that nothing has, and where there is no attack.
    """
    attacks, cells = _attacks_and_cells(results)
    rows = attacks.to_pylist()
    if not rows:
        raise UserError("there is no attack")
    called = Called(cells.to_pylist())
    names = [called.names(row) for row in rows]
    keep = agreeing([(name,) for name in names], wanted, "attack")
    shown = [row for row, kept in zip(_as_called(rows, names), keep, strict=True) if kept]
    return shown, attacks.filter(pa.array(keep))


def attacks_called(attacks: pa.Table, cells: pa.Table) -> list[dict[str, Any]]:
    """Rows of the view `attacks` with what people call their datasets, models, defences and attacks, in the
    order of the view `cells`, which is that of the grids."""
    rows, called = _in_order(attacks, cells).to_pylist(), Called(cells.to_pylist())
    return list(_as_called(rows, [called.names(row) for row in rows]))


def _as_called(rows: Sequence[Mapping[str, Any]], names: Sequence[Names]) -> Iterator[dict[str, Any]]:
    for row, name in zip(rows, names, strict=True):
        yield {**row, **{key: name[key][0] for key in _KEYS}}


def _attacks_and_cells(results: Several) -> tuple[pa.Table, pa.Table]:
    with connect(results, named=("attacks", "cells")) as connection:
        attacks, cells = (connection.sql(f"FROM {view}").to_arrow_table() for view in ("attacks", "cells"))
    cells = in_order_of_grids("cells", cells, [results] if isinstance(results, Results) else results)
    return _in_order(attacks, cells), cells


def _in_order(attacks: pa.Table, cells: pa.Table) -> pa.Table:
    order: dict[tuple[str, ...], int] = {}
    for place in _places(cells):
        order.setdefault(place, len(order))
    rank = pa.array([order[place] for place in _places(attacks)], pa.int64())
    return attacks.take(pc.sort_indices(rank))


def _places(table: pa.Table) -> list[tuple[str, ...]]:
    columns = (table[name].to_pylist() for name in ("sweep", "victim_id", "attack_id"))
    return list(zip(*columns, strict=True))
