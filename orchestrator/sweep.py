"""One sweep, end to end: plan, schedule, watch, merge."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.accepted import Accepted
from orchestrator.backends import Backend, Finished, Lost, Ready
from orchestrator.errors import UserError
from orchestrator.grid import DatasetEntry, Grid, ModelEntry
from orchestrator.grid_models import misfit
from orchestrator.identity import expand
from orchestrator.machine import available_cpus, provenance
from orchestrator.plan import Plan, make_plan, training_unit
from orchestrator.progress import Progress, SweepState, duration
from orchestrator.scheduler import Outcome, Scheduler, VictimWork
from orchestrator.status import StatusWriter, live_runs
from orchestrator.store import Store, writable_or_raise
from orchestrator.training import TrainingWatch
from orchestrator.merge import table_files
from workers.datasets import DATASETS, DatasetError, ensure_obtainable, inspect
from workers.unit import DEFAULT_RUNNER, WorkerSettings

_TICK = 0.5  # seconds: how soon a time limit or a signal is noticed
_KEEP_ALL = 2**31 - 1


@dataclass(frozen=True)
class RunOptions:
    """How to run a grid: nothing here changes what is measured."""

    output: str
    backend: str = "ray"
    address: str = "local"
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None
    retry_failed: bool = False
    max_failures: str | None = None  # "5" or "10%"
    unit_timeout: float | None = None  # seconds
    stop_after: float | None = None  # seconds
    data_dir: str | None = None
    cache_dir: str | None = None
    runner: str = DEFAULT_RUNNER


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
    """Run what is missing, merge, and say what came of it. Resumes after anything: run it again."""
    store, plan = prepared.store, prepared.plan
    _failure_limit(options.max_failures, 0)  # a wrong one is said before anything is written
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
    if plan.unit_count or options.retry_failed or not _as_before(prepared):
        store.start_run(
            run_id, grid_text=prepared.grid.text, cells=plan.cells, examples=plan.examples, record=record
        )
    state = SweepState(
        grid=prepared.grid.name,
        output=options.output,
        cells=len(plan.cells),
        cells_done=plan.done_cells,
        units=plan.unit_count + len(plan.victims),
        work=sum(len(gap.cells) * (gap.stop - gap.start) for victim in plan.victims for gap in victim.gaps),
    )
    if plan.unit_count:
        backend = make_backend(prepared, options, run_id, record)
        run = _Run(prepared, options, run_id, backend, progress, state, clock)
        run.go()
    else:
        state.state = "finished"
    accepted = store.accepted_shards()
    store.remember(accepted)
    results = store.results(accepted)
    store.write_tables(table_files(results))
    failures = [row for row in store.failures() if row["final"]]
    if state.state == "interrupted":
        code = 130
    else:
        code = 0 if not failures and not state.units_failed and not plan.failed_cells else 1
    return Summary(state, code, failures, run_id)


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
    cache = options.cache_dir or f"{store.location.rstrip('/')}/../victims"
    settings = WorkerSettings(
        output=_absolute(store.location),
        cache=_absolute(cache),
        run_id=run_id,
        data_dir=_absolute(options.data_dir) if options.data_dir else None,
        cpus=options.cpus_per_worker or available_cpus(),
        gpus=options.gpus_per_worker or 0.0,
        provenance={key: value for key, value in record.items() if key not in ("started_at", "retry_failed")},
        python_path=(str(Path.cwd()),),
        runner=options.runner,
    )
    if options.backend == "inline":
        from orchestrator.backends.inline import InlineBackend

        return InlineBackend(settings)
    from orchestrator.backends.ray import RayBackend

    logs = store.log_folder(run_id)
    return RayBackend(
        settings,
        cpus=options.cpus_per_worker,
        gpus=options.gpus_per_worker,
        workers=options.workers,
        most=prepared.plan.unit_count,
        address=options.address,
        logs=Path(logs.path) if logs.is_local else None,
    )


def _absolute(location: str) -> str:
    """Workers have other working directories, and other machines."""
    if "://" not in location:
        return str(Path(location).expanduser().resolve())
    scheme, _, rest = location.partition("://")
    parts: list[str] = []
    for part in rest.split("/"):
        if part == ".." and len(parts) > 1:
            parts.pop()
        else:
            parts.append(part)
    return f"{scheme}://{'/'.join(parts)}"


class _Run:
    """The loop that turns backend events into scheduler calls until nothing is left to do."""

    def __init__(
        self,
        prepared: Prepared,
        options: RunOptions,
        run_id: str,
        backend: Backend,
        progress: Progress,
        state: SweepState,
        clock: Callable[[], float],
    ) -> None:
        plan = prepared.plan
        self.store = prepared.store
        self.options = options
        self.run_id = run_id
        self.backend = backend
        self.progress = progress
        self.state = state
        self.clock = clock
        self.began = clock()
        self.scheduler = Scheduler(
            VictimWork(v.victim.victim_id, training_unit(v.victim), plan.units(v), v.count(plan.slice_size))
            for v in plan.victims
        )
        # How many units each unfinished cell still waits for.
        self.open_cells: Counter[str] = Counter()
        for victim in plan.victims:
            for gap in victim.gaps:
                units = -(-gap.stop // plan.slice_size) - gap.start // plan.slice_size
                self.open_cells.update({cell_id: units for cell_id, _ in gap.cells})
        self.idle: dict[str, None] = {}  # workers without a unit, the longest idle first
        self.since: dict[str, float] = {}  # when each worker got its unit
        self.allowed_failures = _failure_limit(options.max_failures, self.scheduler.total)
        self.signals = 0
        self.training = TrainingWatch(self.store.folder, run_id, state)

    def go(self) -> None:
        status = StatusWriter(self.store, self.run_id, self.training.snapshot)
        try:
            self.backend.start()
            status.start()
            with self._signals(), self.progress:
                try:
                    self._loop()
                    self._conclude()
                except KeyboardInterrupt:
                    self.scheduler.abandon()
                    self.state.state = "interrupted"
                except BaseException:
                    self.state.state = "failed"
                    raise
                finally:
                    self.state.workers.clear()
                    self.progress.show(self.state)
                    status.close()
        finally:
            self.backend.stop()

    def _loop(self) -> None:
        while not self.scheduler.finished:
            self._hand_out()
            for event in self.backend.wait(_TICK):
                match event:
                    case Ready():
                        self.scheduler.join(event.worker)
                        self.idle[event.worker] = None
                        self.state.workers[event.worker] = ""
                    case Finished():
                        self._finished(event)
                    case Lost():
                        self._lost(event.worker, event.reason, charged=event.charged)
            self._limits()
            self.state.seconds = self.clock() - self.began
            self.progress.show(self.state)

    def _hand_out(self) -> None:
        for worker in list(self.idle):
            unit = self.scheduler.next_unit(worker)
            if unit is None:
                continue
            del self.idle[worker]
            self.since[worker] = self.clock()
            self.state.workers[worker] = unit.label
            self.training.began(worker, unit)
            if not unit.trains and self.state.working_since is None:
                self.state.working_since = self.clock() - self.began
            self.backend.submit(worker, unit)

    def _finished(self, event: Finished) -> None:
        report, worker = event.report, event.worker
        outcome = self.scheduler.finish(worker, ok=report.ok)
        self.training.ended(worker)
        self.idle[worker] = None
        self.state.workers[worker] = ""
        if report.ok:
            self.state.units_done += 1
            self.state.trained += report.trained
            self.state.work_done += report.rows
            for cell_id, _ in outcome.unit.cells:
                self.open_cells[cell_id] -= 1
                if not self.open_cells[cell_id]:
                    del self.open_cells[cell_id]
                    self.state.cells_done += 1
        else:
            self._failed(outcome, worker, report.error or "", report.traceback or "")

    def _lost(self, worker: str, reason: str, *, charged: bool) -> None:
        self.idle.pop(worker, None)
        self.since.pop(worker, None)
        self.training.ended(worker)
        if self.state.workers.pop(worker, None) is None:
            return  # it never became ready, so the scheduler has not heard of it
        outcome = self.scheduler.lose(worker, charged=charged)
        if outcome is not None:
            self._failed(outcome, worker, reason, "")

    def _failed(self, outcome: Outcome, worker: str, error: str, traceback: str) -> None:
        final = outcome.state == "failed"
        self.store.record_failure(
            self.run_id,
            outcome.unit,
            attempt=outcome.attempt,
            final=final,
            error=error,
            traceback=traceback,
            worker=worker,
        )
        if not final:
            self.state.retries += 1
            return
        self.state.units_failed += 1 + outcome.skipped
        self.state.failures.append(f"{outcome.unit.label}: {error}")
        if self.state.units_failed > self.allowed_failures:
            self._drain(
                f"more than {self.options.max_failures} failed: finishing what is running, then stopping"
            )

    def _limits(self) -> None:
        now = self.clock()
        if self.options.unit_timeout:
            for worker, since in list(self.since.items()):
                if worker not in self.idle and now - since > self.options.unit_timeout:
                    self.backend.kill(worker)
                    limit = duration(self.options.unit_timeout)
                    reason = f"TimeoutError: not through after {limit} (--unit-timeout)"
                    self._lost(worker, reason, charged=True)
        if self.options.stop_after and now - self.began > self.options.stop_after:
            self._drain(f"--stop-after {duration(self.options.stop_after)}: finishing what is running")

    def _drain(self, note: str) -> None:
        if not self.state.note:
            self.state.note = note
            self.scheduler.drain()

    def _conclude(self) -> None:
        stopped = self.scheduler.waiting > 0
        hopeless = self.state.units_failed > self.allowed_failures
        self.state.state = "interrupted" if stopped and not hopeless else "finished"

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM once: finish what is running. Twice: stop now."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            if self.signals > 1:
                raise KeyboardInterrupt
            self._drain("finishing what is running; once more stops now")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _failure_limit(text: str | None, total: int) -> float:
    """How many units may fail before the sweep stops: "5" of them, or "10%" of all."""
    if text is None:
        return float("inf")
    try:
        number = float(text.removesuffix("%"))
        if number >= 0 and (not text.endswith("%") or number <= 100):
            return total * number / 100 if text.endswith("%") else number
    except ValueError:
        pass
    raise UserError(f'--max-failures: found "{text}"; a count such as 5, or a share such as 10%, is allowed')
