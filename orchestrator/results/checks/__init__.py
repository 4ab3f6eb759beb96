"""When a number is wrong: rules over what an output folder holds, and what they find.

A rule is an object in `RULES`. What it finds is a row of `CHECKS`, which the view `checks`, `verify` and the
marks of tables are made from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from orchestrator.results.checks import cells, flagged, folder, paired, victims
from orchestrator.results.checks.evidence import Evidence
from orchestrator.results.checks.rule import CHECKS, SEVERITIES, Rule

RULES: dict[str, Rule] = {
    rule.name: rule
    for severity in SEVERITIES
    for module in (victims, cells, paired, flagged, folder)
    for rule in module.RULES
    if rule.severity == severity
}
"""Every rule by its name, the gravest first."""

VERDICTS = pa.schema([("cell_id", pa.string()), ("verdict", pa.string()), ("checks", pa.list_(pa.string()))])
"""What findings come to for each cell that any speaks of: the gravest severity, and the rules, it first."""


def find(evidence: Evidence, rules: Iterable[Rule] | None = None) -> pa.Table:
    """Everything that the rules find, as `CHECKS`, the gravest first."""
    rows = [row for rule in rules or RULES.values() for row in rule.rows(evidence)]
    return pa.Table.from_pylist(rows, schema=CHECKS)


def verdicts(evidence: Evidence, findings: pa.Table) -> pa.Table:
    """What `findings` come to for the cells that have rows, as `VERDICTS`."""
    by_place: dict[tuple[str, str | None], list[Mapping[str, Any]]] = defaultdict(list)
    for row in findings.to_pylist():
        if row["victim_id"] is not None:  # else of no cell by itself
            by_place[_key(row)].append(row)
    said = []
    for cell in evidence.cells:
        wide = (
            *by_place.get((cell.victim_id, None), ()),
            *by_place.get((cell.victim_id, cell.attack_id), ()),
        )
        names = {row["rule"] for row in by_place.get((cell.cell_id, None), ())}
        names |= {row["rule"] for row in wide if RULES[row["rule"]].concerns(cell)}
        if names:
            ordered = [name for name in RULES if name in names]
            said.append({"cell_id": cell.cell_id, "verdict": RULES[ordered[0]].severity, "checks": ordered})
    return pa.Table.from_pylist(said, schema=VERDICTS)


def _key(row: Mapping[str, Any]) -> tuple[str, str | None]:
    if row["cell_id"] is not None:
        return row["cell_id"], None
    return row["victim_id"], row["attack_id"]
