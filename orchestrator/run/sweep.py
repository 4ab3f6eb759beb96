"""One sweep, end to end: plan, schedule, watch, merge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.errors import StoreError
from orchestrator.intervals import Interval, subtract
from orchestrator.plan.units import Plan
from orchestrator.results.files import table_files
from orchestrator.results.schemas import WANTED
from orchestrator.run.backends import MakeBackend, make_backend
from orchestrator.run.estimate import Estimate
from orchestrator.run.loop import Loop
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import Prepared, ensure_data
from orchestrator.run.progress import Progress, SweepState
from orchestrator.run.provenance import provenance
from orchestrator.run.status import StatusWriter, live_runs
from orchestrator.store.accepted import Accepted
from orchestrator.store.folder import Store, writable_or_raise
from orchestrator.store.records import Failure
from workers.shards import dimensions
from workers.storage import absolute
from workers.unit import WorkerSettings


@dataclass
class Summary:
    """What came of a run."""

    state: SweepState
    exit_code: int
    failures: list[Failure] = field(default_factory=list)  # the final ones that still count
    run_id: str = ""


def run_sweep(
    prepared: Prepared,
    options: RunOptions,
    progress: Progress,
    *,
    clock: Callable[[], float] = time.monotonic,
    backend: MakeBackend = make_backend,
) -> Summary:
    """Run what is missing, merge, and say what came of it. Resumes after anything: run it again.

    Raises UserError for options that make no sense, BackendError when no worker can be had, and StoreError
    when the output folder cannot be written to.
    """
    options.check()
    try:
        return _run_sweep(prepared, options, progress, clock, backend)
    except OSError as error:
        raise StoreError(
            f"stopped: {error}; what is finished in {prepared.store.location} is kept, "
            "and the same command goes on from there"
        ) from error


def _run_sweep(
    prepared: Prepared,
    options: RunOptions,
    progress: Progress,
    clock: Callable[[], float],
    backend: MakeBackend,
) -> Summary:
    store, plan = prepared.store, prepared.plan
    ensure_data(prepared, options)
    writable_or_raise(store)
    for other in live_runs(store):
        progress.say(
            f"warning: run {other.run_id} on {other.host} is writing to this folder too; "
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
        cells=plan.cell_count,
        cells_done=plan.done_cells,
        units=plan.unit_count + len(plan.todo),
        estimate=Estimate(plan.work),
    )

    def begin() -> None:
        store.start_run(run_id, grid_text=prepared.grid.text, wanted=wanted_cells(plan), record=record)

    asked_anew = options.retry_failed or not _as_before(prepared)
    if plan.unit_count:
        settings = _settings(prepared, options, run_id, record)
        logs = store.log_folder(run_id)
        pool = backend(
            options, settings, most=plan.unit_count, logs=Path(logs.path) if logs.is_local else None
        )
        Loop(plan, store, options, run_id, pool, progress, state, clock).run(begin)
    else:
        state.state = "finished"
        if asked_anew:
            begin()
            StatusWriter(store, run_id, state).write()
    accepted = store.accepted_shards()
    store.remember(accepted)
    # Reading every row again is most of what a run with nothing to do would cost.
    if plan.unit_count or asked_anew or accepted.from_footers or not store.has_tables():
        store.write_tables(table_files(store.results(accepted)))
    failures = _lasting_failures(plan, store, accepted)
    code = 130 if state.state == "interrupted" else 1 if failures or state.units_failed else 0
    return Summary(state, code, failures, run_id)


def wanted_cells(plan: Plan) -> pa.Table:
    """The cells of a plan's grid, as `results.schemas.WANTED`."""
    rows: dict[str, list[Any]] = {name: [] for name in WANTED.names}
    for victim, runs in plan.victims:
        for run in runs:
            for cell in run.cells:
                values = dimensions(victim, run.attack, cell.cell_id, cell.epsilon)
                for name, value in values.items():
                    rows[name].append(value)
                rows["examples"].append(plan.examples[victim.dataset.name])
    return pa.table(rows, schema=WANTED)


def _lasting_failures(plan: Plan, store: Store, accepted: Accepted) -> list[Failure]:
    """The final failures that leave a hole in the grid as it is now."""
    missing: dict[str, list[Interval]] = {}
    victims = set()
    for victim, runs in plan.victims:
        for run in runs:
            for cell in run.cells:
                if left := subtract(plan.wanted(victim), accepted.coverage.get(cell.cell_id, ())):
                    missing[cell.cell_id] = left
                    victims.add(victim.victim_id)
    lasting = []
    for failure in store.failures():
        failed = [(failure.start, failure.stop)]
        if failure.attack_id is None:
            leaves_hole = failure.victim_id in victims
        else:
            leaves_hole = any(
                subtract(missing.get(cell_id, ()), failed) != missing.get(cell_id, [])
                for cell_id in failure.cells
            )
        if failure.final and leaves_hole:
            lasting.append(failure)
    return lasting


def _as_before(prepared: Prepared) -> bool:
    """Whether the latest run into this folder asked for the same cells."""
    before, plan = prepared.store.wanted(), prepared.plan
    if before.num_rows != plan.cell_count:
        return False
    wanted = {
        (cell.cell_id, plan.examples[victim.dataset.name])
        for victim, runs in plan.victims
        for run in runs
        for cell in run.cells
    }
    return wanted == set(zip(before["cell_id"].to_pylist(), before["examples"].to_pylist(), strict=True))


def _settings(
    prepared: Prepared, options: RunOptions, run_id: str, record: Mapping[str, Any]
) -> WorkerSettings:
    """What every worker is told: where everything is, as seen from wherever it runs."""
    output = absolute(prepared.store.location)
    return WorkerSettings(
        output=output,
        cache=absolute(options.cache_dir) if options.cache_dir else beside(output, "victims"),
        run_id=run_id,
        data_dir=absolute(options.data_dir) if options.data_dir else None,
        provenance={key: value for key, value in record.items() if key not in ("started_at", "retry_failed")},
        python_path=(str(Path.cwd()),),
        runner=options.runner,
    )


def beside(location: str, name: str) -> str:
    """The location of `name` in the folder that holds `location`, an absolute path or a URI."""
    place, question, options = location.partition("?")
    return f"{place.rstrip('/').rpartition('/')[0]}/{name}{question}{options}"
