"""One sweep, end to end: plan, schedule, watch, merge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.accepted import Accepted
from orchestrator.backends import Backend
from orchestrator.errors import StoreError, UserError
from orchestrator.grid import DatasetEntry, Grid, ModelEntry
from orchestrator.grid_models import misfit
from orchestrator.identity import expand
from orchestrator.loop import Loop
from orchestrator.machine import available_cpus, provenance
from orchestrator.merge import table_files
from orchestrator.options import RunOptions
from orchestrator.plan import Plan, make_plan, subtract
from orchestrator.progress import Progress, SweepState
from orchestrator.status import StatusWriter, live_runs
from orchestrator.store import Store, writable_or_raise
from workers.datasets import DATASETS, DatasetError, ensure_obtainable, inspect
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
    pairs = {(cell.victim.model["name"], cell.victim.dataset["name"]) for cell in cells}
    for dataset in grid.datasets:
        models = [model for model in grid.models if (model.name, dataset.name) in pairs]
        size = dataset.test_size or _looked_up(dataset, data_dir, models, warnings)
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


def _looked_up(
    dataset: DatasetEntry, data_dir: str | None, models: Sequence[ModelEntry], warnings: list[str]
) -> int:
    """The size of a test split that is known once the data folder is. `models` are attacked on it."""
    try:
        info = inspect(dataset.spec, data_dir)
    except DatasetError as error:
        raise UserError(str(error)) from None
    original = DATASETS[dataset.name].info if dataset.name in DATASETS else info
    if (info.train_size, info.test_size) != (original.train_size, original.test_size):
        warnings.append(
            f"{dataset.name} in the data folder has {info.train_size:,} training and {info.test_size:,} test "
            f"examples, the original {original.train_size:,} and {original.test_size:,}: results are not "
            "comparable with published ones"
        )
    for model in models:
        if dataset.shape is None and (why := misfit(model, info.shape)):
            raise UserError(
                f"{model.name} {why}; those of {dataset.name} have {'×'.join(map(str, info.shape))}"
            )
    return info.test_size


def _data_or_raise(prepared: Prepared, options: RunOptions) -> None:
    """Fail before anything is trained where it can be seen that data which is needed cannot be had.

    On a cluster the workers' machines may have what this one has not.
    """
    if options.address != "local":
        return
    needed = {victim.victim.dataset["name"] for victim in prepared.plan.victims}
    try:
        for dataset in prepared.grid.datasets:
            if dataset.name in needed:
                ensure_obtainable(dataset.spec, options.data_dir)
    except DatasetError as error:
        raise UserError(str(error)) from None


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
    _data_or_raise(prepared, options)
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

    asked_anew = options.retry_failed or not _as_before(prepared)
    if plan.unit_count:
        backend = make_backend(prepared, options, run_id, record)
        Loop(plan, store, options, run_id, backend, progress, state, clock).run(begin)
    else:
        state.state = "finished"
        if asked_anew:
            begin()
            StatusWriter(store, run_id, state.as_dict).write()
    accepted = store.accepted_shards()
    store.remember(accepted)
    # Reading every row again is most of what a run with nothing to do would cost.
    if plan.unit_count or asked_anew or accepted.from_footers or not store.has_tables():
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
