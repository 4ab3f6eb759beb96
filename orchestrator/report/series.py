"""The numbers of robustness tables as charts and scripts of a page take them: light, and in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.report.contest import contests, victim_name
from orchestrator.results.metrics import WORST_CASE
from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text import robustness as words

KEYS = ("sweep", "dataset", "norm", "model", "defence", "attack")
"""What a page can be filtered by: each row, chart and image has a value of every one."""


def row_keys(table: RobustnessTable, row: Row) -> dict[str, str]:
    """What a row is of, under each of `KEYS`."""
    return {
        "sweep": row.sweep,
        "dataset": table.dataset_label,
        "norm": table.norm,
        "model": row.model_label,
        "defence": row.defence_label,
        "attack": row.attack_label,
    }


def series(tables: Sequence[RobustnessTable]) -> dict[str, Any]:
    """Rows, and their entries as lists in the order of `ENTRY`; shares in percent.

    An entry has a number, or what stands in its place (`mark`): never both.
    """
    rows: list[dict[str, Any]] = []
    entries: list[list[Any]] = []
    for table, contest in zip(tables, contests(tables), strict=True):
        names = words.epsilons(table)
        main = {id(row) for row in contest.rows}
        for row in table.rows:
            rows.append(
                {
                    **row_keys(table, row),
                    "victim": victim_name(row, table),
                    "main": id(row) in main,
                    "worst": row.attack == WORST_CASE,
                    "targeted": row.targeted,
                    "clean": percent(row.clean_accuracy),
                }
            )
            for name, epsilon, entry in zip(names, table.epsilons, row.entries, strict=True):
                if entry is not None:
                    entries.append([len(rows) - 1, epsilon, name, *_entry(entry)])
    return {"rows": rows, "fields": list(ENTRY), "entries": entries}


ENTRY = ("row", "epsilon", "text", "value", "low", "high", "sd", "n", "mark", "doubt")
"""What an entry is of, its number with its interval and deviation, why there is none, what is doubted."""


def _entry(entry: Entry) -> list[Any]:
    doubt = ", ".join(entry.checks) if entry.verdict in ("wrong", "suspicious") else ""
    ends = (percent(end) for end in (entry.low, entry.high, entry.sd))
    return [percent(entry.value), *ends, entry.n // entry.seeds, entry.mark, doubt]


def percent(value: float | None) -> float | None:
    """A share in percent, to a hundredth of a point."""
    return None if value is None else round(100 * value, 2)
