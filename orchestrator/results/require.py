"""A requirement on results, for pipelines: a condition that every row has to meet."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from orchestrator.errors import UserError
from orchestrator.results.judged import cells_table
from orchestrator.results.placed import Placed
from orchestrator.results.query import run_query
from orchestrator.results.schemas import Results

VIEWS = ("cells", "worst_case")

_DONE = {"cells": "status = 'done'", "worst_case": "complete"}
_ID = {"cells": "cell_id", "worst_case": "victim_id"}


class Required(NamedTuple):
    """How a requirement turned out."""

    text: str
    rows: int  # that it speaks of
    unmet: list[dict[str, Any]]  # those that do not meet it, and of each its `place` in words


def require(
    results: Sequence[Results], text: str, only: Collection[tuple[str, str]] | None = None
) -> Required:
    """Hold `CONDITION [FROM cells|worst_case] [WHERE …]` against every row, in SQL.

    A row that is not done, or whose condition is null, as it is where a check calls the number wrong, does
    not meet it. `only`: rows of these sweeps and cells, or victims. QueryError for what is no SQL; UserError
    where no row is left, since nothing would have been required then.
    """
    condition, view, where = _parts(text)
    sql = f"SELECT *, coalesce((\n{condition}\n) AND {_DONE[view]}, false) AS required FROM {view}"
    sql += f" WHERE (\n{where}\n)" if where else ""
    rows = [
        row
        for row in run_query(results, sql).to_pylist()
        if only is None or (row["sweep"], row[_ID[view]]) in only
    ]
    if not rows:
        raise UserError(f'--require "{text}": there is no such row of {view}: nothing would be required')
    unmet = [row for row in rows if not row["required"]]
    return Required(text, len(rows), [*_placed(results, unmet)] if unmet else [])


def _placed(results: Sequence[Results], rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    cells: dict[str, list[dict[str, Any]]] = {}
    for cell in cells_table(results).to_pylist():
        cells.setdefault(cell["sweep"], []).append(cell)
    placed = {sweep: Placed(some) for sweep, some in cells.items()}
    for row in rows:
        yield {**row, "place": placed[row["sweep"]].place({"attack": None, **row})}


def _parts(text: str) -> tuple[str, str, str]:
    """Condition, view, and what stands behind WHERE."""
    where = _split(text, "WHERE")
    condition = _split(where[0], "FROM")
    view = (condition[1] or "cells").strip().lower()
    if view not in VIEWS:
        raise UserError(f'--require: found "FROM {view}"; allowed: {", ".join(VIEWS)}')
    if not condition[0].strip():
        raise UserError(f'--require: found "{text}"; a condition is allowed: robust_accuracy >= 0.4 WHERE …')
    return condition[0].strip(), view, where[1].strip()


def _split(text: str, word: str) -> tuple[str, str]:
    """What stands before and behind a word that is in no brackets and no quotes."""
    depth, quote = 0, ""
    for match in re.finditer(rf"['\"()]|\b{word}\b", text, re.I):
        found = match[0]
        if quote:
            quote = "" if found == quote else quote
        elif found in "'\"":
            quote = found
        elif found in "()":
            depth += 1 if found == "(" else -1
        elif not depth:
            return text[: match.start()], text[match.end() :]
    return text, ""
