"""One sweep, end to end: plan, schedule, watch, merge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.accepted import Accepted
from orchestrator.backends import Backend
from orchestrator.errors import StoreError, UserError
from orchestrator.grid import Grid
from orchestrator.identity import expand
from orchestrator.loop import Loop
from orchestrator.machine import available_cpus, provenance
from orchestrator.merge import table_files
from orchestrator.options import RunOptions
from orchestrator.plan import Plan, make_plan, subtract
from orchestrator.progress import Progress, SweepState
from orchestrator.status import StatusWriter, live_runs
from orchestrator.store import Store, writable_or_raise
from workers.datasets import DatasetError, test_size
from workers.unit import WorkerSettings

_KEEP_ALL = 2**31 - 1


@dataclass
class Prepared:
    """A grid held against its output folder: what is there, what is missing."""

    grid: Grid
    store: Store
    accepted: Accepted
    plan: Plan
    warnings: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What came of a run."""

    state: SweepState
    exit_code: int
    failures: list[dict[str, Any]] = field(default_factory=list)  # the final ones that still count
    run_id: str = ""


def prepare(grid: Grid, output: str, *, data_dir: str | None = None, retry_failed: bool = False) -> Prepared:
    """Plan a grid against what its output folder holds. Writes nothing."""
    store = Store(output)
    cells = list(expand(grid))
    if not cells:
        raise UserError(f"grid {grid.name}: exclude leaves no cell at all")
    warnings = list(grid.warnings)
    examples = {}
    for dataset in grid.datasets:
        try:
            size = test_size({"name": dataset.name}, data_dir)
        except DatasetError as error:
            raise UserError(str(error)) from None
        examples[dataset.name] = min(grid.examples, size)
        if size < grid.examples:
            warnings.append(
                f"{dataset.name} has {size:,} test examples: {size:,} are used, not {grid.examples:,}"
            )
    accepted = store.accepted_shards()
    failed, failed_victims = ({}, frozenset()) if retry_failed else store.failed()
    plan = make_plan(
        cells,
        examples=examples,
        slice_size=grid.slice,
        keep=_KEEP_ALL if grid.keep == "all" else grid.keep,
        coverage=accepted.coverage,
        failed=failed,
        failed_victims=failed_victims,
    )
    warnings += accepted.warnings()
    return Prepared(grid, store, accepted, plan, warnings)


def run_sweep(
    prepared: Prepared,
    options: RunOptions,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Summary:
    """Run what is missing, merge, and say what came of it. Resumes after anything: run it again.

    Raises UserError for options that make no sense, BackendError when no worker can be had, and StoreError
    when the output folder cannot be written to.
    """
    options.check()
    try:
        return _run_sweep(prepared, options, progress, clock)
    except OSError as error:
        raise StoreError(
            f"stopped: {error}; what is finished in {prepared.store.location} is kept, "
            "and the same command goes on from there"
        ) from error


def _run_sweep(
    prepared: Prepared, options: RunOptions, progress: Progress, clock: Callable[[], float]
) -> Summary:
    store, plan = prepared.store, prepared.plan
    writable_or_raise(store)
    for other in live_runs(store):
        progress.say(
            f"warning: run {other['run_id']} on {other['host']} is writing to this folder too; "
            "nothing will break, but some units may be computed twice"
        )
    run_id = store.new_run_id()
    record = {
        "run_id": run_id,
        "grid": prepared.grid.name,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "retry_failed": options.retry_failed,
        **provenance(),
    }
    state = SweepState(
        grid=prepared.grid.name,
        output=options.output,
        cells=len(plan.cells),
        cells_done=plan.done_cells,
        units=plan.unit_count + len(plan.victims),
        work=sum(len(gap.cells) * (gap.stop - gap.start) for victim in plan.victims for gap in victim.gaps),
    )

    def begin() -> None:
        store.start_run(
            run_id, grid_text=prepared.grid.text, cells=plan.cells, examples=plan.examples, record=record
        )

    if plan.unit_count:
        backend = make_backend(prepared, options, run_id, record)
        Loop(plan, store, options, run_id, backend, progress, state, clock).run(begin)
    else:
        state.state = "finished"
        if options.retry_failed or not _as_before(prepared):
            begin()
            StatusWriter(store, run_id, state.as_dict).write()
    accepted = store.accepted_shards()
    store.remember(accepted)
    store.write_tables(table_files(store.results(accepted)))
    failures = _lasting_failures(plan, store, accepted)
    code = 130 if state.state == "interrupted" else 1 if failures or state.units_failed else 0
    return Summary(state, code, failures, run_id)


def _lasting_failures(plan: Plan, store: Store, accepted: Accepted) -> list[dict[str, Any]]:
    """The final failures that leave a hole in the grid as it is now."""
    missing = {}
    for cell in plan.cells:
        wanted = [(0, plan.examples[cell.victim.dataset["name"]])]
        if left := subtract(wanted, accepted.coverage.get(cell.cell_id, ())):
            missing[cell.cell_id] = left
    victims = {cell.victim.victim_id for cell in plan.cells if cell.cell_id in missing}
    lasting = []
    for row in store.failures():
        failed = [(row["start"], row["stop"])]
        if row["attack_id"] is None:
            leaves_hole = row["victim_id"] in victims
        else:
            leaves_hole = any(
                subtract(missing.get(cell_id, ()), failed) != list(missing.get(cell_id, ()))
                for cell_id in row["cells"]
            )
        if row["final"] and leaves_hole:
            lasting.append(row)
    return lasting


def _as_before(prepared: Prepared) -> bool:
    """Whether the latest run into this folder asked for the same cells."""
    before = prepared.store.wanted()
    cells = prepared.plan.cells
    if before.num_rows != len(cells):
        return False
    wanted = {(cell.cell_id, prepared.plan.examples[cell.victim.dataset["name"]]) for cell in cells}
    return wanted == set(zip(before["cell_id"].to_pylist(), before["examples"].to_pylist(), strict=True))


def make_backend(prepared: Prepared, options: RunOptions, run_id: str, record: dict[str, Any]) -> Backend:
    """The backend that the options ask for, its workers told where everything is."""
    store = prepared.store
    output = _absolute(store.location)
    settings = WorkerSettings(
        output=output,
        cache=_absolute(options.cache_dir) if options.cache_dir else beside(output, "victims"),
        run_id=run_id,
        data_dir=_absolute(options.data_dir) if options.data_dir else None,
        cpus=options.cpus_per_worker or available_cpus(),
        gpus=options.gpus_per_worker or 0.0,
        provenance={key: value for key, value in record.items() if key not in ("started_at", "retry_failed")},
        python_path=(str(Path.cwd()),),
        runner=options.runner,
    )
    log_folder = store.log_folder(run_id)
    logs = Path(log_folder.path) if log_folder.is_local else None
    if options.backend == "inline":
        from orchestrator.backends.inline import InlineBackend

        return InlineBackend(settings, logs=logs)
    from orchestrator.backends.ray import RayBackend

    return RayBackend(
        settings,
        cpus=options.cpus_per_worker,
        gpus=options.gpus_per_worker,
        workers=options.workers,
        most=prepared.plan.unit_count,
        address=options.address,
        logs=logs,
    )


def _absolute(location: str) -> str:
    """Workers have other working directories, and other machines."""
    return location if "://" in location else str(Path(location).expanduser().resolve())


def beside(location: str, name: str) -> str:
    """The location of `name` in the folder that holds `location`, an absolute path or a URI."""
    place, question, options = location.partition("?")
    return f"{place.rstrip('/').rpartition('/')[0]}/{name}{question}{options}"
