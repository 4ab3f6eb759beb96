"""Which part of robustness tables to show: by name, and one table for each value of something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from orchestrator.errors import ChoiceError, UserError, did_you_mean
from orchestrator.results.judged import cells_and_worst_cases
from orchestrator.results.metrics import BY, METRICS, ROBUST_ACCURACY, Metric
from orchestrator.results.pairing import Outcome, outcomes, with_best
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Place, RobustnessTable, Row, robustness_tables
from workers.unit import without_options

Names = str | Sequence[str]
"""A name, or several."""

_Names = Callable[[RobustnessTable, Row], tuple[str, ...]]

KEYS: Mapping[str, _Names] = {
    "sweep": lambda table, row: (row.sweep,),
    "dataset": lambda table, row: (table.dataset_label, table.dataset),
    "norm": lambda table, row: (table.norm,),
    "model": lambda table, row: (row.model_label, row.model),
    "defence": lambda table, row: (row.defence_label, row.defence, without_options(row.defence)),
    "attack": lambda table, row: (row.attack_label, row.attack),
}
"""What rows may be chosen by: all that a row goes by, the fullest name first."""


def several(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def wanted_names(**asked: Names | None) -> dict[str, list[str]]:
    """What is asked for by each key of `KEYS`, less those by which nothing is."""
    return {key: several(names) for key, names in asked.items() if names}


def metric_named(name: str) -> Metric:
    """UserError for a metric that is not there."""
    if name not in METRICS:
        raise ChoiceError(
            "metric", f': found "{name}"; {did_you_mean(name, METRICS)}allowed: {", ".join(METRICS)}'
        )
    return METRICS[name]


def made(results: Sequence[Results], metric: str = "robust_accuracy") -> list[RobustnessTable]:
    """The robustness tables of sweeps, with what is the best in each. UserError as of `metric_named`."""
    return made_of(*cells_and_worst_cases(results), outcomes(results), metric_named(metric))


def made_of(
    cells: pa.Table, worst: pa.Table, known: Mapping[Place, Outcome], metric: Metric = ROBUST_ACCURACY
) -> list[RobustnessTable]:
    """The same, of what has been read already: the views `cells`, in the order of grids, and `worst_case`."""
    return with_best(robustness_tables(cells, worst, metric=metric), known)


def choose(
    tables: Sequence[RobustnessTable],
    wanted: Mapping[str, Sequence[str]],
    by: Sequence[str] = (),
) -> list[RobustnessTable]:
    """The rows that have one of the `wanted` names under each key of `KEYS`, and a table for each value of
    the keys `by`; epsilons that none of a table's rows has are left out.

    UserError for a name that no row has, or where no row has one of each.
    """
    for key in by:
        if key not in BY:
            raise ChoiceError("by", f': found "{key}"; {did_you_mean(key, BY)}allowed: {", ".join(BY)}')
    for key, names in wanted.items():
        there = [KEYS[key](table, row) for table in tables for row in table.rows]
        known = list(dict.fromkeys(name for some in there for name in some))
        for name in names:
            if name not in known:
                near = did_you_mean(name, known)
                raise ChoiceError(key, f': found "{name}"; {near}there are: {", ".join(known) or "none"}')
    found = [part for table in tables for part in _parts(table, wanted, by)]
    if tables and not found:
        asked = ", ".join(f"{key}={name}" for key, names in wanted.items() for name in names)
        raise UserError(f"no row of the table is of {asked} at once")
    return found


def _parts(
    table: RobustnessTable, wanted: Mapping[str, Sequence[str]], by: Sequence[str]
) -> list[RobustnessTable]:
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        if all(set(names) & set(KEYS[key](table, row)) for key, names in wanted.items() if names):
            parts.setdefault(tuple(KEYS[key](table, row)[0] for key in by), []).append(row)
    return [
        _with_rows(replace(table, by=tuple(zip(by, values, strict=True))), rows)
        for values, rows in parts.items()
    ]


def _with_rows(table: RobustnessTable, rows: Sequence[Row]) -> RobustnessTable:
    used = [i for i in range(len(table.epsilons)) if any(row.entries[i] for row in rows)]
    return replace(
        table,
        epsilons=tuple(table.epsilons[i] for i in used),
        rows=tuple(replace(row, entries=tuple(row.entries[i] for i in used)) for row in rows),
    )
