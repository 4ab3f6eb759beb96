"""Seconds from a grid file of many cells to its units."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading
from orchestrator.grid.load import load_grid
from orchestrator.intervals import Interval
from orchestrator.plan.units import Plan, make_plan
from orchestrator.run.prepare import prepare


def measure(*, cells: int = 100_000, repeats: int = 3) -> list[Reading]:
    """A grid of 10 attacks × 100 epsilons and as many victims as make `cells`, a multiple of 1,000."""
    with tempfile.TemporaryDirectory() as folder:
        sweeps.write_grid(
            Path(folder), victims=cells // 1000, attacks=10, epsilons=100, examples=500, size=250
        )
        path, output = str(Path(folder) / "benchmark.yaml"), str(Path(folder) / "output")
        fresh, resumed = [], []
        for _ in range(repeats):
            begun = time.perf_counter()
            plan = prepare(load_grid(path), output).plan
            fresh.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            again = _replan(plan, half=(0, 250))
            resumed.append(time.perf_counter() - begun)
    if plan.cell_count != cells or 2 * again.unit_count != plan.unit_count:
        raise RuntimeError(
            f"{plan.cell_count} cells in {plan.unit_count} units, {again.unit_count} on resuming"
        )
    return [
        Reading(
            what=f"planning {cells:,} cells, from the file",
            value=statistics.median(fresh),
            unit="s",
            at_most=10,
        ),
        Reading(
            what=f"planning {cells:,} cells again, half of each done",
            value=statistics.median(resumed),
            unit="s",
            at_most=10,
        ),
    ]


def _replan(plan: Plan, *, half: Interval) -> Plan:
    coverage = {
        cell.cell_id: [half] for victim in plan.victims for run in victim.attacks for cell in run.cells
    }
    return make_plan(
        plan.victims, examples=plan.examples, slice_size=plan.slice_size, keep=plan.keep, coverage=coverage
    )
