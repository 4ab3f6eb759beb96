"""What others may have written into an output folder, made to fit our tables or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.schemas import LABELS, WANTED
from workers.layout import is_name

_IDS = ("cell_id", "victim_id", "attack_id")
_MAY_BE_NULL = frozenset(
    [
        *("recipe", "targeted", "minimum_norm", "kind", "source_id", "made_by", "network_id"),
        *("sigma", "n0", "draws", "alpha"),
        *LABELS.names,
    ]
)


def fitting(row: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """A row of a table, null where a value is none of its column's."""
    return {field.name: _fitted(row.get(field.name), field.type) for field in schema}


def _fitted(value: Any, kind: pa.DataType) -> Any:
    if value is None or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None


def epochs(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How a victim trained, as its pin says it; empty where that is no such thing."""
    history = manifest.get("history")
    return [each for each in history if isinstance(each, Mapping)] if isinstance(history, list) else []


def impossible(wanted: pa.Table) -> str:
    """Why these (`results.schemas.WANTED`) can be the cells of no grid; "" where they may be.

    Ids are names of files, here and where images are exported to: one that leads elsewhere is none.
    """
    for name in WANTED.names:
        if name not in _MAY_BE_NULL and wanted[name].null_count:
            return f"{name} is missing for {wanted[name].null_count} of its cells"
    for name in _IDS:
        if wrong := [text for text in pc.unique(wanted[name]).to_pylist() if not is_name(text)]:
            return f"{wrong[0][:60]!a} is no {name}"
    if len(pc.unique(wanted["cell_id"])) < wanted.num_rows:
        return "a cell stands there twice"
    if wanted.num_rows and (pc.min(wanted["examples"]).as_py() < 0 or not _finite(wanted["epsilon"])):
        return "a number of examples or an epsilon is impossible"
    return ""


def _finite(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.is_finite(column)).as_py()) and pc.min(column).as_py() >= 0
