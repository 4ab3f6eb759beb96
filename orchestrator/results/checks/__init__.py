"""When a number is wrong: rules over what an output folder holds, and what they find.

A rule is an object in `RULES`. What it finds is a row of `CHECKS`, which the view `checks`, `verify` and the
marks of tables are made from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.results.checks import cells, certified, flagged, folder, paired, stronger, victims
from orchestrator.results.checks.evidence import Cell, Evidence
from orchestrator.results.checks.rule import CHECKS, SEVERITIES, Rule
from orchestrator.results.schemas import VICTIMS
from workers.probes import Probes
from workers.unit import VictimSpec

RULES: dict[str, Rule] = {
    rule.name: rule
    for severity in SEVERITIES
    for module in (victims, cells, certified, paired, stronger, flagged, folder)
    for rule in module.RULES
    if rule.severity == severity
}
"""Every rule by its name, the gravest first."""

_SAID = (("verdict", pa.string()), ("checks", pa.list_(pa.string())))

VERDICTS = pa.schema([("cell_id", pa.string()), *_SAID])
"""What findings come to for each cell that any speaks of: the gravest severity, and the rules, it first."""

WORST_VERDICTS = pa.schema(
    [("victim_id", pa.string()), ("norm", pa.string()), ("epsilon", pa.float64()), *_SAID]
)
"""The same for each worst case."""


@dataclass(frozen=True)
class Judged:
    """What the rules say of a folder."""

    findings: pa.Table  # `CHECKS`, the gravest first
    cells: pa.Table  # `VERDICTS`
    worst_cases: pa.Table  # `WORST_VERDICTS`


def judge(evidence: Evidence) -> Judged:
    """Hold a folder against every rule."""
    rows = [row for rule in RULES.values() for row in rule.rows(evidence)]
    by_cell = _by_cell(evidence, rows)
    every = (*evidence.cells, *evidence.transfers)
    said = [{"cell_id": cell.cell_id, **_said(by_cell[cell.cell_id])} for cell in every]
    return Judged(
        pa.Table.from_pylist(rows, schema=CHECKS),
        pa.Table.from_pylist([one for one in said if one["checks"]], schema=VERDICTS),
        pa.Table.from_pylist(list(_worst_cases(evidence, rows, by_cell)), schema=WORST_VERDICTS),
    )


def judge_victims(
    victims: Iterable[VictimSpec], probes: Iterable[Probes], wanted: Iterable[Mapping[str, Any]] = ()
) -> pa.Table:
    """What the rules say of victims by the figures of their probes alone, as `CHECKS`. `wanted` are the cells
    that they are called by, rows of `results.schemas.WANTED`."""
    evidence = Evidence(
        wanted=[{**cell, "n": 0} for cell in wanted],
        victims=[_described(victim) for victim in victims],
        figures={
            each.victim_id: {name: value for name, value in each.figures.items() if value is not None}
            for each in probes
        },
    )
    return judge(evidence).findings


def _described(victim: VictimSpec) -> dict[str, Any]:
    return {
        **dict.fromkeys(VICTIMS.names),
        "victim_id": victim.victim_id,
        "model": victim.model.name,
        "model_options": victim.model.shown,
        "dataset": victim.dataset.name,
        "defence": victim.defence.label,
        "seed": victim.seed,
    }


def _by_cell(evidence: Evidence, rows: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The rules that speak of each cell: a finding of its own, or a wider one that concerns it."""
    found: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for row in rows:
        if row["cell_id"] is not None:
            found[row["cell_id"], None].append(row["rule"])
        elif row["victim_id"] is not None and row["epsilon"] is None:
            found[row["victim_id"], row["attack_id"]].append(row["rule"])
    by_cell = {}
    for cell in (*evidence.cells, *evidence.transfers):
        wide = (*found.get((cell.victim_id, None), ()), *found.get((cell.victim_id, cell.attack_id), ()))
        by_cell[cell.cell_id] = {name for name in wide if RULES[name].concerns(cell)}
        by_cell[cell.cell_id].update(found.get((cell.cell_id, None), ()))
    return by_cell


def _worst_cases(
    evidence: Evidence, rows: Iterable[Mapping[str, Any]], by_cell: Mapping[str, set[str]]
) -> Iterator[dict[str, Any]]:
    """What all its searches suffer from, since any that does not may find what the others miss; and what
    makes up successes in any of them."""
    at: dict[tuple[str, str, float], list[Cell]] = defaultdict(list)
    for cell in evidence.cells:
        if cell.searched:
            at[cell.victim_id, cell.norm, cell.epsilon].append(cell)
    own = {
        _point(row): {row["rule"]} for row in rows if row["cell_id"] is None and row["epsilon"] is not None
    }
    for point in map(_point, evidence.worst_cases):
        here = at.get(point, [])
        searches = [cell for cell in here if cell.kind.iterative or cell.kind.black_box]
        searches = searches or [cell for cell in here if cell.kind.white_box] or here
        names = set.intersection(*(by_cell[cell.cell_id] for cell in searches)) if searches else set()
        names = {name for name in names if RULES[name].spreads}
        made_up = {name for cell in here for name in by_cell[cell.cell_id] if RULES[name].makes_up}
        if names | made_up | own.get(point, set()):
            yield {
                **dict(zip(("victim_id", "norm", "epsilon"), point, strict=True)),
                **_said(names | made_up | own.get(point, set())),
            }


def _point(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["victim_id"], row["norm"], row["epsilon"]


def _said(names: Collection[str]) -> dict[str, Any]:
    ordered = [name for name in RULES if name in names]
    return {"verdict": RULES[ordered[0]].severity if ordered else None, "checks": ordered}
