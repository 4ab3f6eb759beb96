"""One sweep, end to end: plan, schedule, watch, merge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.errors import StoreError
from orchestrator.intervals import Interval, subtract
from orchestrator.plan.labels import Labels, labels_of, named_cell
from orchestrator.plan.units import Plan
from orchestrator.rereading import again, note
from orchestrator.results.checks.rule import CHECKS
from orchestrator.results.files import table_files
from orchestrator.results.judged import judged_tables
from orchestrator.results.schemas import LABELS, WANTED
from orchestrator.run.backends import MakeBackend, make_backend
from orchestrator.run.estimate import Estimate
from orchestrator.run.loop import Loop
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import Prepared, ensure_data
from orchestrator.run.progress import Progress, SweepState
from orchestrator.run.provenance import provenance
from orchestrator.run.status import StatusWriter
from orchestrator.store.accepted import Accepted
from orchestrator.store.folder import Store, writable_or_raise
from orchestrator.store.records import Failure
from workers.attacks import REGISTRY
from workers.datasets.named import DATA_VARIABLE
from workers.storage import absolute, redacted, token_in
from workers.unit import AttackSpec, VictimSpec, WorkerSettings

_OF_THE_RUN = ("started_at", "retry_failed", "only")  # said of a run, and not with each of its shards


@dataclass
class Summary:
    """What came of a run."""

    state: SweepState
    exit_code: int
    failures: list[Failure] = field(default_factory=list)  # the final ones that still count
    run_id: str = ""
    checks: pa.Table = field(default_factory=CHECKS.empty_table)  # what is wrong with the numbers


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
            f"stopped: {redacted(str(error))}; what is finished in {prepared.store.shown} is kept, "
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
    if unreadable := prepared.accepted.unreadable:
        # What they hold would be computed again, for nothing.
        raise StoreError(
            f"{len(unreadable):,} shards in {store.shown} cannot be read now, shards/{unreadable[0].name} "
            f"among them ({unreadable[0].reason}): run the command again when they can"
        )
    ensure_data(prepared, options)
    writable_or_raise(store)
    store.remember(prepared.accepted)  # at the end only what is new is to be read
    asked_anew = options.retry_failed or not _as_before(prepared)
    state = SweepState(
        grid=prepared.grid.name,
        cells=plan.cell_count,
        cells_done=plan.done_cells,
        units=plan.unit_count + len(plan.todo),
        estimate=Estimate(plan.work, plan.training_work),
    )
    run_id = ""
    with ExitStack() as until_the_end:
        if plan.unit_count or asked_anew:
            with store.new_run() as run_id:
                _compute(prepared, options, progress, clock, backend, run_id, state, until_the_end)
        else:
            state.state = "finished"
        return _conclude(prepared, progress, run_id, state)


def _conclude(prepared: Prepared, progress: Progress, run_id: str, state: SweepState) -> Summary:
    """Merge, and say what came of it."""
    store, plan = prepared.store, prepared.plan
    accepted = store.accepted_shards()
    store.remember(accepted)
    for warning in accepted.warnings() if accepted.unreadable else ():
        progress.say(f"warning: {warning}")
    missing = _missing(plan, accepted)
    # What workers reported is no result: only what lies in the folder counts.
    reported, state.cells_done = state.cells_done, plan.cell_count - len(missing)
    if reported > state.cells_done:
        progress.say(
            f"warning: {reported - state.cells_done:,} cells were reported done, but their shards are not in "
            f"{store.shown}: is it the same storage on every machine?"
        )
    if run_id:
        StatusWriter(store, run_id, state).write()
    # Also when nothing was run: the last run may have been cut off before it came to this.
    survivors_of = prepared.survivors_of
    checks = _write_tables(survivors_of or store, None if survivors_of else accepted)
    failures = _lasting_failures(plan, store, missing)
    code = 130 if state.state == "interrupted" else 1 if missing else 0
    return Summary(state, code, failures, run_id, checks)


def _write_tables(store: Store, accepted: Accepted | None) -> pa.Table:
    """The files of `tables/`, of what counts; what checks found."""
    listed = [accepted]

    @again
    def write() -> pa.Table:
        results = store.results(listed.pop() if listed else None)
        note(results)
        judged = judged_tables(results)
        store.write_tables(table_files(*judged))
        return judged[-1]

    return write()


def _compute(
    prepared: Prepared,
    options: RunOptions,
    progress: Progress,
    clock: Callable[[], float],
    backend: MakeBackend,
    run_id: str,
    state: SweepState,
    until_the_end: ExitStack,
) -> None:
    """Write down what the run was asked for, and run what is missing of it; `until_the_end` signals are
    caught from then on."""
    store, plan = prepared.store, prepared.plan
    record = {
        "run_id": run_id,
        "grid": prepared.grid.name,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "retry_failed": options.retry_failed,
        "only": _selection(plan),
        **provenance(),
    }

    wanted = wanted_cells(plan, labels_of(prepared.grid))

    def begin() -> None:
        store.start_run(run_id, grid_text=prepared.grid.text, wanted=wanted, record=record)

    if not plan.unit_count:
        begin()
        state.state = "finished"
        return
    settings = worker_settings(prepared, options, run_id=run_id, record=record)
    logs = store.log_folder(run_id)
    with _tokens(settings) as token:
        pool = backend(
            options,
            replace(settings, token=token),
            most=plan.unit_count,
            logs=Path(logs.path) if logs.is_local else None,
        )
        loop = Loop(plan, store, options, run_id, pool, progress, state, clock)
        until_the_end.enter_context(loop.catching_signals())
        loop.run(begin)


@contextmanager
def _tokens(settings: WorkerSettings) -> Iterator[str]:
    """A file in output and cache that every worker must find; StoreError where it cannot be left."""
    with ExitStack() as stack:
        try:
            token = stack.enter_context(token_in(settings.output, settings.cache))
        except OSError as error:
            cache = f"the cache of victims, {redacted(settings.cache)}"
            raise StoreError(f"cannot write to {cache}: {error.strerror or error}") from None
        yield token


def _selection(plan: Plan) -> dict[str, list[str]] | None:
    """What --only asks for, by id; None for the whole grid. A failure of the rest outlives --retry-failed."""
    if plan.cell_count == plan.grid_cell_count:
        return None
    return {
        "victims": [victim.victim_id for victim, _ in plan.selected],
        "cells": [cell.cell_id for _, runs in plan.selected for run in runs for cell in run.cells],
    }


def wanted_cells(plan: Plan, labels: Labels) -> pa.Table:
    """The cells of a plan's grid, as `results.schemas.WANTED`."""
    rows: dict[str, list[Any]] = {name: [] for name in WANTED.names}
    for victim, runs in plan.victims:
        for run in runs:
            kind = run.attack.kind
            known = None if run.attack.factory or kind == "certificate" else REGISTRY[run.attack.name]
            said = {
                **named_cell(victim, run.attack, labels),
                "examples": plan.examples[victim.dataset.name],
                "minimum_norm": known and known.minimum_norm,
                "kind": kind,
                **_certificate(victim, run.attack),
                "source_id": run.attack.made_against and run.attack.made_against.victim_id,
                "made_by": run.attack.made_by,
                "network_id": victim.network.victim_id,
            }
            for cell in run.cells:
                for name, value in {**said, "cell_id": cell.cell_id, "epsilon": cell.epsilon}.items():
                    rows[name].append(value)
    return pa.table(rows, schema=WANTED)


def _certificate(victim: VictimSpec, attack: AttackSpec) -> dict[str, Any]:
    """What certificates take, as `results.schemas.WANTED` has it."""
    if attack.kind != "certificate":
        return dict.fromkeys(("sigma", "n0", "draws", "alpha"))
    (smoothing,) = (part for part in victim.defence.each if part.name == "smoothing")
    options = attack.options
    return {
        "sigma": smoothing.options["sigma"],
        "n0": options["n0"],
        "draws": options["n"],
        "alpha": options["alpha"],
    }


def _missing(plan: Plan, accepted: Accepted) -> dict[str, list[Interval]]:
    """What each cell that is asked for lacks, by its id; cells that are done are left out."""
    lacking = {
        cell.cell_id: subtract(plan.wanted(victim), accepted.coverage.get(cell.cell_id, ()))
        for victim, runs in plan.selected
        for run in runs
        for cell in run.cells
    }
    return {cell_id: left for cell_id, left in lacking.items() if left}


def _lasting_failures(plan: Plan, store: Store, missing: Mapping[str, Sequence[Interval]]) -> list[Failure]:
    """The final failures that leave a hole in what is asked for now."""
    victims = {
        victim.victim_id
        for victim, runs in plan.selected
        if any(cell.cell_id in missing for run in runs for cell in run.cells)
    }
    lasting = []
    for failure in store.failures():
        failed = [(failure.start, failure.stop)]
        if failure.attack_id is None:
            leaves_hole = failure.victim_id in victims
        else:
            leaves_hole = any(
                subtract(missing.get(cell_id, ()), failed) != list(missing.get(cell_id, ()))
                for cell_id in failure.cells
            )
        if failure.final and leaves_hole:
            lasting.append(failure)
    return lasting


def _as_before(prepared: Prepared) -> bool:
    """Whether the latest run into this folder asked for the same cells, in the order of which tables are, and
    by the same labels."""
    before, plan = prepared.store.wanted(), prepared.plan
    if before.num_rows != plan.grid_cell_count:
        return False
    said = ["cell_id", "examples", *LABELS.names]
    now = wanted_cells(plan, labels_of(prepared.grid))
    return bool(now.select(said).equals(before.select(said)))


def worker_settings(
    prepared: Prepared, options: RunOptions, *, run_id: str = "", record: Mapping[str, Any] | None = None
) -> WorkerSettings:
    """What every worker is told: where everything is, as seen from wherever it runs."""
    output = absolute(prepared.store.location)
    data_dir = options.data_dir or os.environ.get(DATA_VARIABLE)  # other machines do not have it there
    return WorkerSettings(
        output=output,
        cache=absolute(options.cache_dir) if options.cache_dir else beside(output, "victims"),
        run_id=run_id,
        data_dir=absolute(data_dir) if data_dir else None,
        provenance={key: value for key, value in (record or {}).items() if key not in _OF_THE_RUN},
        python_path=prepared.grid.python_path,
        runner=options.runner,
        paths=_paths(prepared.plan),
        factories=_factories(prepared.plan),
    )


def _paths(plan: Plan) -> tuple[str, ...]:
    """What of the user's own is read from elsewhere than the data folder."""
    found: dict[str, None] = {}
    for victim, _ in plan.selected:
        weights = victim.model.weights
        location = weights.location if weights and weights.sha256 else None
        found |= dict.fromkeys(filter(None, (victim.model.path, location, victim.dataset.path)))
    return tuple(found)


def _factories(plan: Plan) -> tuple[str, ...]:
    """What of the user's own the units of a plan name."""
    found: dict[str, None] = {}
    for victim, runs in plan.selected:
        named = (victim.model.factory, *(part.factory for part in victim.defence.each))
        found |= dict.fromkeys(filter(None, (*named, *(run.attack.factory for run in runs))))
    return tuple(found)


def beside(location: str, name: str) -> str:
    """The location of `name` in the folder that holds `location`, an absolute path or a URI.

    Of a whole bucket, or of the root of a disk, it is inside: nobody has named what lies beside.
    """
    place, question, options = location.partition("?")
    scheme, separator, path = place.rstrip("/").rpartition("://")
    bucket, slash, rest = path.rpartition("/")
    alone = not rest or (separator and scheme != "file" and not slash)
    folder = path if alone else bucket
    return f"{scheme}{separator}{folder}/{name}{question}{options}"
