"""Tables of a page beside those of robustness: transfers, certificates, attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report.facts import Facts
from orchestrator.report.series import percent
from orchestrator.results.attacked import attacks_called
from orchestrator.results.bounds import as_called, certificate_names
from orchestrator.results.display import epsilon_text
from orchestrator.results.matrix import BLIND, matrix
from orchestrator.results.text import certified as certificates
from orchestrator.results.text import quality as attacks
from orchestrator.results.text.base import shown


def transfers(facts: Facts) -> list[dict[str, Any]]:
    """Who falls to whose images: one row for each victim that images were made against, and each that they
    were tried on; of an attack on the victim itself too."""
    tried = [row for row in facts.rows("transfer") if not row["targeted"]]  # that is no robust accuracy
    found = matrix(tried, facts.rows("cells"))
    return [
        {
            "sweep": row.sweep,
            "dataset": row.dataset,
            "norm": row.norm,
            "attack": row.attack,
            "epsilon": row.epsilon,
            "text": epsilon_text(row.epsilon),
            "source": row.source,
            "target": target,
            "value": percent(number.value),
            "mark": number.mark,
            "blind": "".join(flag.mark for flag in number.blind),
            "white_box": number.white_box,
            "same_network": number.same_network,
        }
        for row in found.rows
        for target, number in row.numbers.items()
    ]


def blind(transfers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What marks of some transfers mean: that images were made blindly."""
    marks = {mark for one in transfers for mark in one["blind"]}
    return [f"{flag.mark} {flag.meaning}" for flag in BLIND if flag.mark in marks]


def certified(facts: Facts) -> dict[str, Any]:
    """What no attack can do to smoothed victims, beside what attacks have left; empty without any."""
    rows = facts.rows("certified_accuracy")
    if not rows:
        return {}
    rows = as_called(rows, certificate_names(rows, facts.rows("cells")))
    columns = certificates.columns(rows)
    return {
        "names": list(zip(columns.names, columns.numeric, strict=True)),
        "rows": [
            [(shown(value), numeric) for value, numeric in zip(row, columns.numeric, strict=True)]
            for row in columns.rows
        ],
        "caption": certificates.caption(rows),
    }


def quality(facts: Facts) -> dict[str, Any]:
    """What attacks spend, and how near each comes to all of them together; empty without any attack."""
    rows = attacks_called(facts.views["attacks"], facts.views["cells"])
    if not rows:
        return {}
    columns = attacks.columns(rows)
    of = ("sweep", "dataset", "norm", "model", "defence", "attack")
    return {
        "names": list(zip(columns.names, columns.numeric, strict=True)),
        "rows": [
            {
                "keys": {key: row[key] for key in of},
                "cells": [
                    (shown(value), numeric) for value, numeric in zip(cells, columns.numeric, strict=True)
                ],
            }
            for row, cells in zip(rows, columns.rows, strict=True)
        ],
        "caption": attacks.caption(rows),
    }
