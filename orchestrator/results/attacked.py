"""Which attacks a table of their quality is to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError
from orchestrator.results.called import Called, agreeing
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
    shown = [
        {**row, **{key: name[key][0] for key in _KEYS}}
        for row, name, kept in zip(rows, names, keep, strict=True)
        if kept
    ]
    return shown, attacks.filter(pa.array(keep))


def _attacks_and_cells(results: Several) -> tuple[pa.Table, pa.Table]:
    found = []
    for one in [results] if isinstance(results, Results) else results:
        with connect(one) as connection:
            attacks, cells = (
                connection.sql(f"FROM {view}").to_arrow_table() for view in ("attacks", "cells")
            )
        order = {key: i for i, key in reversed(list(enumerate(_places(one.wanted))))}
        rank = pa.array([order[key] for key in _places(attacks)], pa.int64())
        wanted = pc.index_in(cells["cell_id"], value_set=one.wanted["cell_id"])
        found.append((attacks.take(pc.sort_indices(rank)), cells.take(pc.sort_indices(wanted))))
    attacks, cells = (pa.concat_tables(tables) for tables in zip(*found, strict=True))
    return attacks, cells


def _places(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["victim_id"].to_pylist(), table["attack_id"].to_pylist(), strict=True))
