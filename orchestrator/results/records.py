"""Robustness tables in long form, for programs."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from orchestrator.results.metrics import ROBUST_ACCURACY, TARGET_MISSED
from orchestrator.results.tables import Entry, RobustnessTable, Row

RECORDS = pa.schema(
    [
        ("sweep", pa.string()),
        ("dataset", pa.string()),
        ("norm", pa.string()),
        ("model", pa.string()),
        ("model_options", pa.string()),
        ("recipe", pa.string()),
        ("defence", pa.string()),
        ("attack", pa.string()),
        ("attack_options", pa.string()),
        ("adaptive", pa.bool_()),
        ("targeted", pa.bool_()),
        ("epsilon", pa.float64()),
        ("status", pa.string()),
        ("metric", pa.string()),  # a name of `METRICS`, and what it comes to
        ("value", pa.float64()),
        ("robust_accuracy", pa.float64()),
        ("robust_sd", pa.float64()),
        ("robust_low", pa.float64()),
        ("robust_high", pa.float64()),
        ("target_missed", pa.float64()),
        ("target_missed_sd", pa.float64()),
        ("target_missed_low", pa.float64()),
        ("target_missed_high", pa.float64()),
        ("clean_accuracy", pa.float64()),
        ("clean_sd", pa.float64()),
        ("n", pa.int64()),
        ("examples", pa.int64()),
        ("seeds", pa.int64()),
        ("flags", pa.list_(pa.string())),
        ("attacks", pa.list_(pa.string())),
        ("robust_accuracy_unchecked", pa.float64()),
        ("target_missed_unchecked", pa.float64()),
        ("verdict", pa.string()),
        ("checks", pa.list_(pa.string())),
    ]
)
"""Robustness tables in long form: one row per entry. The words are those of `Entry` and `Row`, and of the
view `cells`; a targeted attack has no robust accuracy, and no other has a share of targets missed."""


def robustness_records(tables: Iterable[RobustnessTable]) -> pa.Table:
    """The entries of robustness tables, one row each, as `RECORDS`."""
    records = [
        {
            **{name: getattr(table, name) for name in ("dataset", "norm")},
            **{name: getattr(row, name) for name in RECORDS.names if hasattr(row, name)},
            **{name: getattr(entry, name) for name in ("status", "n", "examples", "seeds", "attacks")},
            "epsilon": epsilon,
            "metric": table.metric.column,
            "value": None if row.targeted and table.metric == ROBUST_ACCURACY else entry.value,
            **(_shares(row, entry) if table.metric == ROBUST_ACCURACY else {}),
            **{name: getattr(entry, name) for name in ("verdict", "checks")},
        }
        for table in tables
        for row in table.rows
        for epsilon, entry in zip(table.epsilons, row.entries, strict=True)
        if entry is not None
    ]
    return pa.Table.from_pylist(records, schema=RECORDS)


def _shares(row: Row, entry: Entry) -> dict[str, float | None]:
    metric = TARGET_MISSED if row.targeted else ROBUST_ACCURACY
    return {
        metric.column: entry.value,
        f"{metric.ends}_sd": entry.sd,
        f"{metric.ends}_low": entry.low,
        f"{metric.ends}_high": entry.high,
        f"{metric.column}_unchecked": entry.unchecked,
    }
