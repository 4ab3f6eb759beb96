"""Numbers class by class, for people."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from orchestrator.results.display import epsilon_text
from orchestrator.results.tables import RobustnessTable, Row
from orchestrator.results.text.base import NO_VALUE, Columns
from orchestrator.results.text.robustness import percent

_LABELS = ("sweep", "dataset", "norm", "model", "defence", "attack", "epsilon")


def columns(records: pa.Table, rows: Sequence[tuple[RobustnessTable, Row]], digits: int = 1) -> Columns:
    """A row for each class of each number (`results.per_class.class_records`)."""
    cells = []
    for record, (table, row) in zip(records.to_pylist(), rows, strict=True):
        doubted = "*" if record["verdict"] == "suspicious" else ""
        number = f"{percent(record['accuracy'], None, digits)}{doubted}"
        why = "wrong" if record["verdict"] == "wrong" else record["status"]
        interval = NO_VALUE
        if record["low"] is not None:
            interval = f"{percent(record['low'], None, digits)} to {percent(record['high'], None, digits)}"
        labels = (row.sweep, table.dataset_label, table.norm, row.model_label, row.defence_label)
        cells.append(
            [
                *labels,
                row.attack_label,
                epsilon_text(record["epsilon"]),
                record["class_name"] or NO_VALUE,
                percent(record["clean_accuracy"], None, digits),
                number if record["accuracy"] is not None else why,
                interval,
                NO_VALUE if record["n"] is None else f"{record['n']:,}",
            ]
        )
    names = [*_LABELS, "class", "clean", "under attack", "95% interval", "n"]
    numeric = [*[False] * 6, True, False, *[True] * 4]
    kept = [i for i in range(len(names)) if i or len({cell[0] for cell in cells}) > 1]
    return Columns(
        [names[i] for i in kept], [[cell[i] for i in kept] for cell in cells], [numeric[i] for i in kept]
    )


def caption(records: pa.Table) -> str:
    """What the numbers are, in a line."""
    parts = ["right of all test images of the class; intervals are for their sampling only"]
    if any(records["targeted"].to_pylist()):
        parts.append("targeted: right and not driven to the target, which is no robust accuracy")
    if "suspicious" in records["verdict"].to_pylist():
        parts.append("* suspicious: robustsweep verify says why")
    if "wrong" in records["verdict"].to_pylist():
        parts.append("wrong: robustsweep verify says why")
    return "; ".join(parts)
