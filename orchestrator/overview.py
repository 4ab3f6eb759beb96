"""What `plan` and `status` say, as plain records: `show` prints it for people, JSON holds it for programs.

Their fields are documented in docs/running.md; they are added to, never renamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, get_args

from orchestrator.plan.cost import Cost
from orchestrator.plan.labels import labels_of, named_cell
from orchestrator.results.schemas import LABELS
from orchestrator.run.prepare import Prepared
from orchestrator.run.status import settled_life
from orchestrator.store.folder import Store
from orchestrator.store.records import Status
from workers.unit import AttackSpec, Preparation, VictimSpec


@dataclass
class PlanRow:
    """One victim, its seeds together, under one attack; or under its images from other victims, together."""

    victim: VictimSpec  # that of the first seed
    attack: AttackSpec  # as run on the victim itself, or on the first of the others
    examples: int
    seeds: list[int] = field(default_factory=list)
    epsilons: set[Fraction] = field(default_factory=set)  # exact, on the [0, 1] scale
    cells: int = 0
    todo: int = 0
    sources: set[str] = field(default_factory=set)  # the other victims, by id; empty: it is no transfer


def plan_rows(prepared: Prepared) -> list[PlanRow]:
    """Keyed by what is run, never by its label: two things may share one."""
    plan = prepared.plan
    rows: dict[tuple[str, str, bool], PlanRow] = {}
    for victim, runs in plan.selected:
        but_for_seed = repr(replace(victim, victim_id="", network_id="", seed=0))
        for attack, cells in runs:
            new = PlanRow(victim, attack, plan.examples[victim.dataset.name])
            key = but_for_seed, attack.made_by, attack.made_against is not None
            row = rows.setdefault(key, new)
            if attack.made_against is not None:
                row.sources.add(attack.made_against.victim_id)
            if victim.seed not in row.seeds:
                row.seeds.append(victim.seed)
            row.epsilons.update(cell.exact for cell in cells)
            row.cells += len(cells)
            row.todo += sum(cell.cell_id in plan.missing for cell in cells)
    return list(rows.values())


def plan_record(prepared: Prepared, costs: Sequence[Cost] = (), price: float | None = None) -> dict[str, Any]:
    """What a run would do, and what it would take on each device that is known."""
    plan, labels = prepared.plan, labels_of(prepared.grid)
    return {
        "grid": prepared.grid.name,
        "output": prepared.store.shown,
        "cells": plan.cell_count,
        "done": plan.done_cells,
        "failed": plan.failed_cells,
        "todo": plan.open_cells,
        "units": plan.unit_count,
        "victims": {how: plan.preparations[how] for how in get_args(Preparation)},
        "cost": [{**asdict(cost), "price": None if price is None else cost.hours * price} for cost in costs],
        "rows": [
            {
                "model": row.victim.model.name,
                "model_options": row.victim.model.shown,
                "recipe": said["recipe"],
                "dataset": row.victim.dataset.name,
                "defence": row.victim.defence.label,
                "seeds": row.seeds,
                "attack": row.attack.name,
                "attack_options": row.attack.shown,
                "norm": row.attack.norm,
                "adaptive": row.attack.adaptive,
                "sources": len(row.sources),
                **{name: said[name] for name in LABELS.names},
                "epsilons": [float(epsilon) for epsilon in sorted(row.epsilons)],
                "examples": row.examples,
                "cells": row.cells,
                "todo": row.todo,
            }
            for row in plan_rows(prepared)
            for said in (named_cell(row.victim, row.attack, labels),)
        ],
    }


def hours_of_all(store: Store) -> tuple[dict[str, float], int]:
    """What all runs into a folder have used, hours by device, and how many have said so."""
    total: Counter[str] = Counter()
    statuses = [store.read_status(run_id) for run_id in store.run_ids()]
    said = [status.used for status in statuses if status and status.used]
    for hours in said:
        total.update(hours)
    return dict(total), len(said)


def status_record(store: Store) -> dict[str, Any]:
    """Where the latest run is, and whether it lives; of one that left no status, only its id is known."""
    run_id = store.run_ids()[-1]
    status = store.read_status(run_id)
    if status is None:
        unknown: dict[str, Any] = {each.name: None for each in fields(Status)}
        return {**unknown, "run_id": run_id, "life": "unknown", "used_by_all": None}
    every, _ = hours_of_all(store)
    return {**asdict(status), "life": settled_life(store, status), "used_by_all": every}
