"""Which certificates a table is to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.results.called import Called, agreeing
from orchestrator.results.query import Several
from orchestrator.results.tables import judged_tables


def chosen_certificates(
    results: Several, wanted: Mapping[str, Sequence[str]]
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Rows of the view `certified_accuracy` that have one of the names that are `wanted` of `dataset`,
    `model` and `defence`, with what people call these; and as a table, as they are.

    UserError for a name that nothing has, and where nothing was to be certified at all.
    """
    cells, _, _, certified, _ = judged_tables(results)
    rows = certified.to_pylist()
    if not rows:
        raise UserError("nothing was to be certified: a defence named smoothing in a grid asks for that")
    called = Called([*cells.to_pylist(), *map(_unattacked, rows)])
    names = [called.names(row) for row in rows]
    keep = agreeing([(name,) for name in names], wanted, "certificate")
    shown = [
        {**row, **{key: name[key][0] for key in ("dataset", "model", "defence")}, "model_options": ""}
        for row, name, kept in zip(rows, names, keep, strict=True)
        if kept
    ]
    return shown, certified.filter(pa.array(keep))


def _unattacked(row: Mapping[str, Any]) -> dict[str, Any]:
    """A victim that may have no attack, as a row of `cells` would name it."""
    labels = dict.fromkeys(("model_label", "dataset_label", "defence_label", "attack_label"), "")
    return {
        **row,
        **labels,
        "attack": "",
        "attack_options": "",
        "attack_id": "",
        "norm": "l2",
        "adaptive": True,
        "targeted": False,
    }
