"""Seconds, and memory, from a grid file of many cells to its units."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import reading, sweeps
from benchmarks.reading import Reading
from orchestrator.grid.load import load_grid
from orchestrator.intervals import Interval
from orchestrator.plan.units import Plan, make_plan
from orchestrator.run.prepare import prepare
from orchestrator.run.scheduler import Scheduler
from orchestrator.run.work import VictimWork
from workers.machine import resident_bytes


def measure(*, cells: int = 100_000, repeats: int = 3) -> list[Reading]:
    """A grid of 10 attacks × 100 epsilons and as many victims as make `cells`, a multiple of 1,000."""
    with tempfile.TemporaryDirectory() as folder:
        sweeps.write_grid(
            Path(folder), victims=cells // 1000, attacks=10, epsilons=100, examples=500, size=250
        )
        path, output = str(Path(folder) / "benchmark.yaml"), str(Path(folder) / "output")
        before, after = reading.fresh(_memory, path, output)
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
            at_most=5,
        ),
        Reading(
            what=f"planning {cells:,} cells again, half of each done",
            value=statistics.median(resumed),
            unit="s",
            at_most=5,
        ),
        Reading(
            what=f"the most memory of a process that plans {cells:,} cells",
            value=after,
            unit="MiB",
            at_most=500,
        ),
        Reading(what="the same before it plans", value=before, unit="MiB"),
    ]


def _memory(path: str, output: str) -> tuple[float, float]:
    """MiB of resident memory: before planning, and the most until the scheduler has the plan."""
    before = resident_bytes() / 2**20
    plan = prepare(load_grid(path), output).plan
    work = (
        VictimWork(each.victim.victim_id, each.training, iter(plan.units(each)), each.count(plan.slice_size))
        for each in plan.todo
    )
    if Scheduler(work).total != plan.unit_count + len(plan.todo):
        raise RuntimeError("the scheduler has other units than the plan")
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _replan(plan: Plan, *, half: Interval) -> Plan:
    coverage = {
        cell.cell_id: [half] for victim in plan.victims for run in victim.attacks for cell in run.cells
    }
    return make_plan(
        plan.victims, examples=plan.examples, slice_size=plan.slice_size, keep=plan.keep, coverage=coverage
    )
