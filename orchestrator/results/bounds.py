"""Which certificates a table is to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.results.called import Called, Names, agreeing
from orchestrator.results.judged import judged_tables
from orchestrator.results.query import Several


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
    names = certificate_names(rows, cells.to_pylist())
    keep = agreeing([(name,) for name in names], wanted, "certificate")
    shown = [row for row, kept in zip(as_called(rows, names), keep, strict=True) if kept]
    return shown, certified.filter(pa.array(keep))


def certificate_names(rows: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]) -> list[Names]:
    """The names that each row of the view `certified_accuracy` goes by (`Called.names`), among those of the
    view `cells`."""
    called = Called([*cells, *map(_unattacked, rows)])
    return [called.names(row) for row in rows]


def as_called(rows: Sequence[Mapping[str, Any]], names: Sequence[Names]) -> list[dict[str, Any]]:
    """Those rows, with what people call their datasets, models and defences."""
    return [
        {**row, **{key: name[key][0] for key in ("dataset", "model", "defence")}, "model_options": ""}
        for row, name in zip(rows, names, strict=True)
    ]


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
