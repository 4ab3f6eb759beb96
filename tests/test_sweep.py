"""One sweep, end to end: resume, growth, failures, signals and limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.errors import BackendError, StoreError, UserError
from orchestrator.grid.load import load_grid
from orchestrator.results.judged import cells_table
from orchestrator.results.schemas import Results
from orchestrator.run import events as event_log
from orchestrator.run import sweep as sweep_module
from orchestrator.run.backends import Event, Notice
from orchestrator.run.prepare import prepare
from orchestrator.run.sweep import Summary
from orchestrator.store.folder import Store
from orchestrator.store.records import Failure
from tests.support.runners import MadeUp
from tests.support.sweeps import (
    Answer,
    Quiet,
    Scripted,
    rows,
    successes,
    sweep,
    times_counted,
    write_grid,
)
from workers.code import this_code
from workers.unit import Done, Evaluation, Failed, Report, Training, Unit, WorkerSettings


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "moods.yaml")


def failures(output: Path) -> list[Failure]:
    return Store(str(output)).failures()


def events(output: Path) -> list[dict[str, Any]]:
    """Of the first run."""
    log = min(output.glob("runs/*/events.jsonl"))
    return [json.loads(line) for line in log.read_text().splitlines()]


def written(output: Path) -> dict[Path, int]:
    """When each file but the tables was written."""
    files = (path for path in output.rglob("*") if path.is_file() and path.parent.name != "tables")
    return {path: path.stat().st_mtime_ns for path in files}


# -- resume and growth ------------------------------------------------------------------------------------


def test_a_sweep_does_everything_once(grid: Path, output: Path) -> None:
    summary = sweep(grid, output)
    assert (summary.exit_code, summary.state.state, summary.failures) == (0, "finished", [])
    assert (summary.state.cells_done, summary.state.units_done, summary.state.prepared.total()) == (2, 3, 1)
    assert times_counted(rows(output)) == {1: 200}
    assert successes(rows(output)) == 18  # of 90 right on the clean image, those of position < 20
    assert sorted(path.name for path in (output / "tables").iterdir()) == [
        "cells.parquet",
        "checks.parquet",
        "robustness.csv",
        "robustness.md",
    ]


def test_a_second_run_does_nothing(grid: Path, output: Path) -> None:
    sweep(grid, output)
    before = written(output)
    summary = sweep(grid, output, backend="ray", runner="tests.no_such_module:Runner")  # nor starts anything
    assert (summary.exit_code, summary.state.units, summary.state.state) == (0, 0, "finished")
    assert written(output) == before


@pytest.mark.parametrize(
    ("change", "units", "total"),
    [
        (["epsilons=[0, 0.1, 0.2]"], 2, 300),
        (["examples=175"], 2, 350),  # [100, 150) and [150, 175)
        (["examples=120", "epsilons=[0, 0.1, 0.2]"], 3, 360),  # new cells for all, old ones for [100, 120)
        (["models=[small_cnn, wide_cnn]"], 2, 400),
        (["examples=60"], 0, 200),
        (["slice=7"], 0, 200),
        (["keep=0"], 0, 200),
        (["epsilons=[0]"], 0, 200),
    ],
)
def test_a_grown_grid_computes_only_what_is_new(
    grid: Path, output: Path, change: list[str], units: int, total: int
) -> None:
    sweep(grid, output)
    summary = sweep(grid, output, change)
    assert summary.exit_code == 0
    assert summary.state.units_done == (units + 1 if units else 0)
    assert times_counted(rows(output)) == {1: total}
    assert sweep(grid, output, change).state.units == 0


def test_a_new_attack_computes_only_its_own(tmp_path: Path, output: Path) -> None:
    sweep(write_grid(tmp_path / "one.yaml", ["work"]), output)
    summary = sweep(write_grid(tmp_path / "two.yaml", ["work", "other"]), output)
    assert (summary.state.units_done, summary.state.cells_done) == (3, 4)
    assert times_counted(rows(output)) == {1: 400}


def test_two_drivers_at_once_lose_and_double_nothing(grid: Path, output: Path) -> None:
    drivers = [threading.Thread(target=sweep, args=(grid, output, ["slice=10"])) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert times_counted(rows(output)) == {1: 200}
    summary = sweep(grid, output)
    assert (summary.state.units, summary.exit_code) == (0, 0)


# -- failures ---------------------------------------------------------------------------------------------


def test_a_failing_unit_is_retried_recorded_and_the_rest_goes_on(tmp_path: Path, output: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["raise", "work"])
    summary = sweep(grid, output)
    assert (summary.exit_code, summary.state.state) == (1, "finished")
    assert (summary.state.units_done, summary.state.units_failed, summary.state.retries) == (3, 2, 2)
    assert times_counted(rows(output)) == {1: 200}
    records = sorted(failures(output), key=lambda row: (row.start, row.attempt))
    assert [(row.start, row.attempt, row.final) for row in records] == [
        (0, 1, False),
        (0, 2, True),
        (50, 1, False),
        (50, 2, True),
    ]
    record = records[1]
    assert record.error == "ValueError: this unit raises"
    assert "tests/support/runners.py" in record.traceback
    assert "and says so in two lines" in record.traceback
    assert record.unit == "raise linf on small_cnn on digits [0, 50)"
    assert [row.unit for row in summary.failures] == [
        "raise linf on small_cnn on digits [0, 50)",
        "raise linf on small_cnn on digits [50, 100)",
    ]


def test_what_failed_waits_for_retry_failed(tmp_path: Path, output: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["raise", "work"])
    sweep(grid, output)
    again = sweep(grid, output)
    assert (again.exit_code, again.state.units, len(again.failures)) == (1, 0, 2)
    assert len(failures(output)) == 4
    retried = sweep(grid, output, retry_failed=True)
    assert (retried.exit_code, retried.state.units_failed, len(retried.failures)) == (1, 2, 2)
    assert len(failures(output)) == 8
    mended = sweep(grid, output, retry_failed=True, runner="tests.support.runners:MadeUp")
    assert (mended.exit_code, mended.failures, mended.state.units_done) == (0, [], 3)
    assert sweep(grid, output).exit_code == 0
    assert times_counted(rows(output)) == {1: 400}


@pytest.mark.parametrize("change", ["attacks=[fgsm]", "examples=50"])
def test_failures_of_what_is_no_longer_asked_for_do_not_count(
    tmp_path: Path, output: Path, change: str
) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["late"])

    def answer(unit: Unit, attempt: int) -> Report:
        late = isinstance(unit, Evaluation) and unit.attack.name == "late" and unit.start == 50
        return Failed(unit_id=unit.unit_id, error="E: no", traceback="t") if late else runner(unit)

    runner = MadeUp(WorkerSettings(str(output), str(tmp_path / "victims"), "r"))
    pool = Scripted(runner_settings(output), answer)
    assert sweep(grid, output, pool=lambda *_, **__: pool).exit_code == 1
    changed = sweep(grid, output, [change])
    assert (changed.exit_code, changed.failures) == (0, [])
    assert sweep(grid, output).exit_code == 1


def test_without_weights_a_victims_units_are_not_tried(tmp_path: Path, output: Path) -> None:
    models = ["small_cnn", {"name": "bad", "factory": "tests.support.runners:Misbehaving", "mood": "raise"}]
    grid = write_grid(tmp_path / "moods.yaml", ["work"], models=models)
    summary = sweep(grid, output)
    assert (summary.exit_code, summary.state.units_failed, summary.state.units_done) == (1, 3, 3)
    assert [(row.unit, row.attack_id) for row in summary.failures] == [("train bad on digits", None)]
    again = sweep(grid, output)
    assert (again.exit_code, again.state.units, len(again.failures)) == (1, 0, 1)


def test_a_runner_that_does_not_import_is_one_clear_error(grid: Path, output: Path) -> None:
    with pytest.raises(BackendError, match="the worker does not start: ModuleNotFoundError: No module named"):
        sweep(grid, output, runner="tests.no_such_module:Runner")
    assert sweep(grid, output).exit_code == 0


def test_what_a_runner_prints_while_it_starts_goes_to_a_log(
    grid: Path, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep(grid, output, runner="tests.support.runners:Chatty")
    captured = capfd.readouterr()
    assert captured.err == "heard while it runs\n" * 3
    [run_id] = Store(str(output)).run_ids()
    assert "chatter" in (output / "runs" / run_id / "logs" / "inline.log").read_text()


def test_what_is_reported_done_but_is_not_in_the_folder_is_not_done(grid: Path, output: Path) -> None:
    """Two machines, one with its own disk at the output path: half of the shards never arrive."""
    progress = Quiet()
    summary = sweep(grid, output, progress=progress, runner="tests.support.runners:Elsewhere")
    assert (summary.exit_code, summary.state.units_done, summary.state.cells_done) == (1, 3, 0)
    [warning] = progress.said
    assert warning.startswith("warning: 2 cells were reported done, but their shards are not in ")
    store = Store(str(output))
    status = store.read_status(summary.run_id)
    assert status and (status.cells_done, status.state) == (0, "finished")
    assert set(cells_table(store.results())["status"].to_pylist()) == {"partial"}
    assert sweep(grid, output).exit_code == 0
    assert times_counted(rows(output)) == {1: 200}


def test_a_cache_that_cannot_be_written_to_is_said_before_anything_runs(grid: Path, output: Path) -> None:
    grid.with_name("file").touch()
    with pytest.raises(StoreError, match=r"cannot write to the cache of victims, .*file/victims"):
        sweep(grid, output, cache_dir=str(grid.with_name("file") / "victims"))


def test_shards_by_two_states_of_the_code_are_shown(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(grid, output)
    assert prepare(load_grid(str(grid)), str(output)).warnings == []
    monkeypatch.setattr("workers.shards.this_code", lambda: replace(this_code(), source="f" * 64))
    sweep(grid, output, ["examples=150"])
    [warning] = prepare(load_grid(str(grid)), str(output)).warnings
    made = f"2 by {this_code().source[:8]}, 1 by ffffffff"
    assert warning.startswith(f"shards by 2 states of robustsweep's source: {made}")


# -- lost workers, limits and signals ---------------------------------------------------------------------


def runner_settings(output: Path) -> WorkerSettings:
    return WorkerSettings(str(output), str(output.parent / "victims"), "r")


@pytest.fixture
def scripted(grid: Path, output: Path) -> Callable[..., tuple[Summary, Scripted]]:
    """Run the grid on a backend whose attempts at evaluation units end as `answer` says."""

    def run(
        answer: Callable[[Unit, int, Scripted], Answer],
        overrides: list[str] | None = None,
        *,
        prepare: Callable[[Scripted], None] = lambda backend: None,
        **options: Any,
    ) -> tuple[Summary, Scripted]:
        def with_training(unit: Unit, attempt: int) -> Answer:
            return backend.runner(unit) if isinstance(unit, Training) else answer(unit, attempt, backend)

        backend = Scripted(runner_settings(output), with_training)
        prepare(backend)
        summary = sweep(
            grid, output, overrides or [], clock=backend.clock, pool=lambda *_, **__: backend, **options
        )
        assert backend.stopped
        return summary, backend

    return run


def works(unit: Unit, attempt: int, backend: Scripted) -> Report:
    return backend.runner(unit)


def test_a_lost_worker_is_charged_and_its_unit_tried_elsewhere(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    summary, backend = scripted(lambda u, n, b: "charged" if u.start == 0 and n == 1 else b.runner(u))
    assert (summary.exit_code, summary.state.retries, summary.state.units_failed) == (0, 1, 0)
    first, second = [worker for unit_id, worker in backend.given if ".0-50." in unit_id]
    assert first != second
    assert times_counted(rows(output)) == {1: 200}
    assert [(row.final, row.error) for row in failures(output)] == [(False, "its process died")]


def test_a_unit_that_kills_its_workers_fails_alone(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    summary, backend = scripted(lambda u, n, b: "charged" if u.start == 0 else b.runner(u))
    assert (summary.exit_code, summary.state.units_failed, summary.state.units_done) == (1, 1, 2)
    assert max(backend.attempts.values()) == 2
    assert times_counted(rows(output)) == {1: 100}


def test_losing_a_machine_is_not_charged(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    summary, backend = scripted(lambda u, n, b: "uncharged" if u.start == 0 and n <= 4 else b.runner(u))
    assert (summary.exit_code, summary.state.units_failed) == (0, 0)
    assert max(backend.attempts.values()) == 5
    assert {row.attempt for row in failures(output)} == {1}


def test_a_worker_that_retires_is_replaced_uncharged(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    def retires(unit: Unit, attempt: int, backend: Scripted) -> Report:
        report = backend.runner(unit)
        return Done(unit_id=unit.unit_id, rows=report.rows, retire=True)

    summary, backend = scripted(retires, ["slice=10"])
    assert (summary.exit_code, summary.state.retries) == (0, 0)
    assert len({worker for _, worker in backend.given}) >= 10
    assert failures(output) == []
    assert times_counted(rows(output)) == {1: 200}


def test_a_unit_that_hangs_is_ended_and_charged(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    summary, backend = scripted(
        lambda u, n, b: None if n == 1 else b.runner(u), ["slice=100"], backend="ray", unit_timeout=60.0
    )
    assert (summary.exit_code, summary.state.retries, len(backend.killed)) == (0, 1, 1)
    [record] = failures(output)
    assert record.error == "TimeoutError: not through after 1 min 00 s (--unit-timeout)"
    assert record.worker == backend.killed[0]
    assert times_counted(rows(output)) == {1: 200}


def test_with_no_worker_left_a_sweep_says_so_and_ends_in_time(scripted, grid: Path, output: Path) -> None:  # type: ignore[no-untyped-def]
    """Workers die and none comes, as when Ray itself has died without a word."""
    progress, began = Quiet(), []

    def answer(unit: Unit, attempt: int, backend: Scripted) -> Answer:
        began.append(backend)
        return "gone"

    with pytest.raises(BackendError, match=r"no worker for 1 min 30 s \(the last one: its process died\)"):
        scripted(answer, backend="ray", wait_for_workers=90.0, progress=progress)
    assert 90 <= began[0].seconds < 100
    assert progress.noted[:2] == [
        "starting workers",
        "no worker lives, waiting for one, for at most 1 min 30 s (--wait-for-workers)",
    ]
    store = Store(str(output))
    status = store.read_status(store.run_ids()[-1])
    assert (status.state, status.seconds_left) == ("failed", None)
    assert "no worker for 1 min 30 s" in status.note
    assert {record.final for record in failures(output)} == {False}
    assert sweep(grid, output).exit_code == 0
    assert times_counted(rows(output)) == {1: 200}


def test_without_a_limit_workers_are_waited_for(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    def answer(unit: Unit, attempt: int, backend: Scripted) -> Answer:
        return "gone" if attempt == 1 else backend.runner(unit)

    def late(backend: Scripted) -> None:
        wait = backend.wait

        def waiting(timeout: float) -> list[Event]:
            if backend.seconds > 7200 and backend.workers_ever == 2:
                backend.replace()
            return wait(timeout)

        backend.wait = waiting  # type: ignore[method-assign]

    progress = Quiet()
    summary, _ = scripted(answer, backend="ray", wait_for_workers=0.0, progress=progress, prepare=late)
    assert summary.exit_code == 0
    assert progress.noted == ["starting workers", "no worker lives, waiting for one"]
    assert (summary.state.waiting, summary.state.note) == ("", "")


def test_what_the_pool_has_to_say_is_said_and_noted(scripted) -> None:  # type: ignore[no-untyped-def]
    def talkative(backend: Scripted) -> None:
        backend.events.append(Notice("a machine is left out"))

    progress = Quiet()
    summary, _ = scripted(works, progress=progress, prepare=talkative)
    assert (progress.said, summary.state.note) == (["a machine is left out"], "a machine is left out")


def press(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_what_is_running(scripted, grid: Path, output: Path, number: int) -> None:  # type: ignore[no-untyped-def]
    def answer(unit: Unit, attempt: int, backend: Scripted) -> Report:
        if len(backend.given) == 5 and not backend.signalled:  # the training, and two of four units run
            backend.signalled = True
            press(number)
        return backend.runner(unit)

    before = signal.getsignal(number)
    summary, backend = scripted(answer, ["slice=10"])
    assert (summary.exit_code, summary.state.state) == (130, "interrupted")
    assert (summary.state.units_done, summary.state.units_failed) == (len(backend.given), 0)
    assert len(backend.given) == 5
    called = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert summary.state.note == f"stopped by {called}"
    (draining,) = (event for event in events(output) if event["event"] == "draining")
    assert draining["why"] == f"{called}: finishing what is running; once more stops now"
    assert times_counted(rows(output)) == {1: 4 * 10 * 2}
    assert failures(output) == []
    assert signal.getsignal(number) is before
    assert (output / "tables" / "cells.parquet").exists()
    resumed = sweep(grid, output, ["slice=10"])
    assert (resumed.exit_code, resumed.state.units_done) == (0, 7)
    assert times_counted(rows(output)) == {1: 200}


def test_two_signals_stop_now(scripted, grid: Path, output: Path) -> None:  # type: ignore[no-untyped-def]
    def answer(unit: Unit, attempt: int, backend: Scripted) -> Answer:
        if unit.start < 20:
            return backend.runner(unit)
        press(signal.SIGINT)
        return None  # it would never end

    summary, _ = scripted(answer, ["slice=10"])
    assert (summary.exit_code, summary.state.state) == (130, "interrupted")
    assert times_counted(rows(output)) == {1: 40}
    assert failures(output) == []
    assert Store(str(output)).read_status(summary.run_id).state == "interrupted"
    assert sweep(grid, output).exit_code == 0
    assert times_counted(rows(output)) == {1: 200}


def test_a_signal_with_nothing_left_to_hand_out_is_no_interruption(scripted, output: Path) -> None:  # type: ignore[no-untyped-def]
    def answer(unit: Unit, attempt: int, backend: Scripted) -> Report:
        if len(backend.given) == 3 and not backend.signalled:
            backend.signalled = True
            press(signal.SIGINT)
        return backend.runner(unit)

    summary, _ = scripted(answer)
    assert (summary.exit_code, summary.state.state) == (0, "finished")


def test_a_signal_in_the_midst_of_writing_an_event_stops_nothing_for_ever(  # type: ignore[no-untyped-def]
    scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python runs its handler wherever it is, here with the log's lock held."""
    sound = event_log.redacted

    def pressed(line: str) -> str:
        if "unit_finished" in line and not pressing:
            pressing.append(line)
            press(signal.SIGTERM)
        return sound(line)

    pressing: list[str] = []
    monkeypatch.setattr(event_log, "redacted", pressed)
    summary, _ = scripted(works, ["slice=10"])
    assert pressing and (summary.exit_code, summary.state.note) == (130, "stopped by SIGTERM")


@pytest.mark.parametrize("times", [1, 2])
def test_tables_are_written_to_the_end_unless_two_signals_say_no(  # type: ignore[no-untyped-def]
    scripted, output: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    sound, before = sweep_module.judged_tables, signal.getsignal(signal.SIGTERM)

    def pressed(results: Results) -> object:
        for _ in range(times):
            press(signal.SIGTERM)
        return sound(results)

    monkeypatch.setattr(sweep_module, "judged_tables", pressed)
    if times == 2:
        with pytest.raises(KeyboardInterrupt):
            scripted(works)
    else:
        summary, _ = scripted(works)
        assert (summary.exit_code, summary.state.state, summary.state.note) == (0, "finished", "")
    assert (output / "tables" / "cells.parquet").exists() == (times == 1)
    assert signal.getsignal(signal.SIGTERM) is before


def fails(unit: Unit, attempt: int, backend: Scripted) -> Report:
    return Failed(unit_id=unit.unit_id, error="E: no", traceback="t")


@pytest.mark.parametrize(("limit", "failed"), [("0", 1), ("2", 3), ("30%", 4), ("0%", 1)])
def test_a_hopeless_sweep_stops(scripted, output: Path, limit: str, failed: int) -> None:  # type: ignore[no-untyped-def]
    summary, backend = scripted(fails, ["slice=10"], max_failures=limit)  # 11 units with the training
    assert (summary.exit_code, summary.state.state) == (1, "finished")
    assert failed <= summary.state.units_failed <= failed + 1  # one more may have been running
    assert sum(backend.attempts.values()) <= 1 + 2 * (failed + 1)  # it did not try every unit once first
    assert f"more than {limit} failed" in summary.state.note


@pytest.mark.parametrize("limit", ["some", "-1", "101%", "", "nan"])
def test_a_wrong_limit_is_said_before_anything_is_written(grid: Path, output: Path, limit: str) -> None:
    with pytest.raises(UserError, match=r"--max-failures: found .* a count such as 5"):
        sweep(grid, output, max_failures=limit)
    assert not output.exists()


def test_stop_after_finishes_what_is_running(scripted, grid: Path, output: Path) -> None:  # type: ignore[no-untyped-def]
    summary, _ = scripted(works, ["slice=10"], stop_after=4.0)
    assert (summary.exit_code, summary.state.state) == (130, "interrupted")
    assert summary.state.note == "--stop-after 4 s: finishing what is running"
    done = summary.state.units_done - 1
    assert 0 < done < 10
    assert times_counted(rows(output)) == {1: 20 * done}
    assert sweep(grid, output).exit_code == 0
    assert times_counted(rows(output)) == {1: 200}


# -- what goes wrong in the driver ------------------------------------------------------------------------


def test_a_backend_that_does_not_start_leaves_no_run(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Scripted(runner_settings(output), lambda unit, attempt: None)

    def start() -> None:
        raise BackendError("3 workers do not fit")

    monkeypatch.setattr(backend, "start", start)
    with pytest.raises(BackendError, match="do not fit"):
        sweep(grid, output, pool=lambda *_, **__: backend)
    assert backend.stopped
    assert [path for path in output.rglob("*") if path.is_file()] == []


def test_an_error_in_the_driver_is_not_lost(grid: Path, output: Path) -> None:
    """What is a bug of ours keeps its traceback; the status says that the run failed; resuming works."""
    backend = Scripted(runner_settings(output), lambda unit, attempt: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        sweep(grid, output, pool=lambda *_, **__: backend)
    assert backend.stopped
    store = Store(str(output))
    assert store.read_status(store.run_ids()[-1]).state == "failed"
    assert sweep(grid, output).exit_code == 0


def test_a_full_disk_is_one_clear_error(grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write_tables", full)
    with pytest.raises(
        StoreError, match=r"stopped: .*No space left on device; what is finished in .* is kept"
    ):
        sweep(grid, output)


def test_a_full_disk_in_a_worker_is_no_failure_of_a_unit(scripted, grid: Path, output: Path) -> None:  # type: ignore[no-untyped-def]
    """What runs is finished, nothing is charged or recorded, and the same command goes on from there."""

    def answer(unit: Unit, attempt: int, backend: Scripted) -> Report:
        if unit.start < 20:
            return backend.runner(unit)
        return Failed(unit_id=unit.unit_id, error="OSError: [Errno 28] No space left", disk_full=True)

    with pytest.raises(
        StoreError, match=r"stopped: OSError: \[Errno 28\] No space left; what is finished in "
    ):
        scripted(answer, ["slice=10"])
    assert failures(output) == []
    store = Store(str(output))
    status = store.read_status(store.run_ids()[-1])
    assert (status.state, status.units_done, status.units_failed) == ("failed", 3, 0)
    assert "No space left" in status.note
    assert times_counted(rows(output)) == {1: 40}
    assert sweep(grid, output, ["slice=10"]).exit_code == 0
    assert times_counted(rows(output)) == {1: 200}


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (disk / "other").write_bytes(bytes(900_000))
        grid = write_grid(tmp_path / "g.yaml", examples=500, slice=25)
        with pytest.raises(StoreError, match="No space left on device"):
            sweep(grid, disk / "out")
        assert 0 < len(list((disk / "out" / "shards").rglob("*.parquet"))) < 20
        assert {record.final for record in failures(disk / "out")} <= {False}
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        assert sweep(grid, disk / "out").exit_code == 0
        assert times_counted(rows(disk / "out")) == {1: 1000}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_preparing_writes_nothing(grid: Path, output: Path) -> None:
    prepared = prepare(load_grid(str(grid)), str(output))
    assert (prepared.plan.unit_count, prepared.plan.open_cells) == (2, 2)
    assert not output.exists()


def test_fewer_examples_than_asked_for_is_a_warning(tmp_path: Path, output: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", examples=10_000)
    [warning] = prepare(load_grid(str(grid)), str(output)).warnings
    assert warning == "digits has 500 test examples: 500 are used, not 10,000"
    progress = Quiet()
    assert sweep(grid, output, progress=progress).exit_code == 0
    assert progress.said == []
    assert times_counted(rows(output)) == {1: 2 * 500}


def test_a_grid_without_cells_is_refused(tmp_path: Path, output: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", exclude=[{"model": "small_cnn"}])
    with pytest.raises(UserError, match="exclude leaves no cell at all"):
        sweep(grid, output)


def test_tables_are_made_anew_after_a_merge_that_was_cut_off(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is computed and in the index, but the tables are those of the run before."""
    sweep(grid, output)

    def cut_off(store: Store, files: Mapping[str, bytes]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "write_tables", cut_off)
        sweep(grid, output, ["epsilons=[0, 0.1, 0.2]"])
    assert pq.read_table(output / "tables" / "cells.parquet").num_rows == 2
    summary = sweep(grid, output, ["epsilons=[0, 0.1, 0.2]"])
    assert summary.state.units == 0
    assert pq.read_table(output / "tables" / "cells.parquet").num_rows == 3
