"""Tables of tens of millions of rows: seconds and memory, at first, again, and with little that is new."""

from __future__ import annotations

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading, fresh
from orchestrator.plan.cells import expand
from orchestrator.plan.labels import Labels
from orchestrator.plan.units import make_plan
from orchestrator.results.judged import cells_table
from orchestrator.run.sweep import wanted_cells
from orchestrator.store.folder import Store
from tests.support.runners import made_up_manifest, made_up_rows, weights_of
from workers.pins import pin
from workers.shards import publish_shard

EXAMPLES, SLICE, EPSILONS = 500, 250, 10


def measure(*, cells: int = 100_000, attacks: int = 100) -> list[Reading]:
    """`cells`, a multiple of 10 × `attacks`, of 500 examples in shards of 250; minutes at 100,000."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "output")
        fabricated = partial(fabricate, attacks=attacks)
        fresh(fabricated, folder, output, cells // (EPSILONS * attacks))
        first, memory = fresh(_table, output)
        again, _ = fresh(_table, output)
        fresh(partial(fabricated, start=SLICE), folder, output, 1)  # of one victim
        little, _ = fresh(_table, output)
    rows = cells * EXAMPLES
    return [
        Reading(what=f"table of {rows:,} rows, never read before", value=first, unit="s", at_most=60),
        Reading(what="its memory", value=memory / 2**20, unit="MiB", at_most=2048),
        Reading(what="the same again", value=again, unit="s"),
        Reading(what="the same, shards of one victim new", value=little, unit="s"),
    ]


def fabricate(folder: str, output: str, victims: int, *, attacks: int = 100, start: int = 0) -> None:
    """Shards, pins and a run, as a sweep of so many victims and attacks at 10 epsilons would have left them,
    from position `start` on."""
    examples = EXAMPLES + start
    grid = sweeps.write_grid(
        Path(folder), victims=victims, attacks=attacks, epsilons=EPSILONS, examples=examples, size=SLICE
    )
    store = Store(output)
    plan = make_plan(list(expand(grid)), examples={"digits": examples}, slice_size=SLICE, keep=0, coverage={})
    for victim in plan.todo:
        weights = weights_of(victim.victim.victim_id)
        pin(store.folder, made_up_manifest(victim.training, weights))
        for unit in plan.units(victim):
            if unit.start >= (EXAMPLES if start else 0):
                rows = made_up_rows(unit)
                publish_shard(
                    store.shards, unit, rows, weights=weights, phases={}, provenance={"device": "none"}
                )
    if not start:
        with store.new_run() as run_id:
            store.start_run(run_id, grid_text=grid.text, wanted=wanted_cells(plan, Labels()), record={})


def _table(output: str) -> tuple[float, int]:
    """Seconds of the cells table, and the bytes that the process held at most."""
    begun = time.perf_counter()
    store = Store(output)
    accepted = store.accepted_shards()
    store.remember(accepted)
    table = cells_table(store.results(accepted))
    seconds = time.perf_counter() - begun
    if set(table["status"].to_pylist()) != {"done"}:
        raise RuntimeError(f"cells are {set(table['status'].to_pylist())}")
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
