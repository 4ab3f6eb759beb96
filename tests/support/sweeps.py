"""Sweeps without TensorFlow: grids whose attacks have moods (`tests.support.runners.Misbehaving`), and a
backend that is told how every attempt at a unit ends."""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.run.backends import Event, Finished, Lost, MakeBackend, Ready
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import SweepState
from orchestrator.run.sweep import Summary, run_sweep
from orchestrator.store.folder import Store
from orchestrator.store.records import Status
from tests.support.runners import MadeUp
from workers.unit import Done, Failed, Report, Unit, WorkerSettings

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


def record(**changes: Any) -> Status:
    """The status of a run that is going on in this process, written at `NOW`."""
    status = Status(
        run_id="r",
        host=socket.gethostname(),
        pid=os.getpid(),
        sequence=3,
        updated_at=NOW.isoformat(),
        grid="g",
        state="running",
        cells=8,
        cells_done=2,
        units=9,
        units_done=0,
        units_failed=0,
        seconds=0.0,
    )
    return replace(status, **changes)


def write_grid(path: Path, moods: Iterable[str] = ("work",), **values: object) -> Path:
    """A grid of one model on `digits` with an attack for each mood; by default 100 examples in 2 units."""
    attacks = [{"name": mood, "factory": "tests.support.runners:Misbehaving", "mood": mood} for mood in moods]
    grid = {
        "name": "moods",
        "models": ["small_cnn"],
        "datasets": ["digits"],
        "attacks": attacks,
        "epsilons": [0, 0.1],
        "examples": 100,
        "slice": 50,
        **values,
    }
    path.write_text(yaml.safe_dump(grid))
    return path


class Quiet:
    """A `Progress` that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.noted: list[str] = []  # each of the state's notes once

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, state: SweepState) -> None:
        if state.notes and state.notes not in self.noted:
            self.noted.append(state.notes)

    def say(self, text: str) -> None:
        self.said.append(text)


def sweep(
    grid: Path | Grid,
    output: Path | str,
    overrides: Sequence[str] = (),
    *,
    clock: Callable[[], float] | None = None,
    pool: MakeBackend | None = None,
    progress: Quiet | None = None,
    **options: Any,
) -> Summary:
    """Run a grid, by default in this process with `Misbehaving`; `pool` makes another backend."""
    loaded = grid if isinstance(grid, Grid) else load_grid(str(grid), overrides)
    values: dict[str, Any] = {"backend": "inline", "runner": "tests.support.runners:Misbehaving", **options}
    run = RunOptions(output=str(output), **values)
    prepared = prepare(loaded, run.output, retry_failed=run.retry_failed, only=run.only)
    injected: dict[str, Any] = {"clock": clock, "backend": pool}
    given = {name: value for name, value in injected.items() if value}
    return run_sweep(prepared, run, progress or Quiet(), **given)


def rows(output: Path | str) -> pa.Table:
    """Every accepted row, in the order of cells and positions."""
    return (
        Store(str(output))
        .accepted_shards()
        .dataset()
        .to_table()
        .sort_by([("cell_id", "ascending"), ("position", "ascending")])
    )


def times_counted(table: pa.Table) -> Counter[int]:
    """How many (cell, position) are counted once, twice, …"""
    groups = table.group_by(["cell_id", "position"]).aggregate([([], "count_all")])
    return Counter(groups["count_all"].to_pylist())


def successes(table: pa.Table) -> int:
    return int(pc.sum(table["success"]).as_py())


Answer = Report | str | None
"""How an attempt ends: a report; "charged" or "uncharged", the worker is lost; "gone": with no other to come;
None: it hangs."""


class Scripted:
    """A `Backend` of `workers` workers; `answer(unit, attempt)` says how each attempt ends.

    A unit takes a second of `clock`, and so does waiting for nothing.
    """

    def __init__(
        self, settings: WorkerSettings, answer: Callable[[Unit, int], Answer], *, workers: int = 2
    ) -> None:
        self.runner = MadeUp(settings)
        self.answer = answer
        self.attempts: Counter[str] = Counter()
        self.given: list[tuple[str, str]] = []  # (unit id, worker), as submitted
        self.killed: list[str] = []
        self.stopped = False
        self.signalled = False
        self.seconds = 0.0
        self.events: deque[Event] = deque()  # to come before all else
        self.demanded: list[tuple[int, int]] = []
        self._ready = deque(f"w{i}" for i in range(1, workers + 1))
        self.workers_ever = workers
        self._running: dict[str, tuple[Unit, int]] = {}

    def clock(self) -> float:
        return self.seconds

    def start(self) -> None: ...

    def submit(self, worker: str, unit: Unit) -> None:
        assert worker not in self._running
        self.attempts[unit.unit_id] += 1
        self.given.append((unit.unit_id, worker))
        self._running[worker] = unit, self.attempts[unit.unit_id]

    def demand(self, useful: int, startable: int) -> None:
        self.demanded.append((useful, startable))

    def wait(self, timeout: float) -> list[Event]:
        if self.events:
            return [self.events.popleft()]
        if self._ready:
            return [Ready(self._ready.popleft(), "here")]
        self.seconds += 1
        for worker, (unit, attempt) in self._running.items():
            answer = self.answer(unit, attempt)
            if answer is None:
                continue
            del self._running[worker]
            if isinstance(answer, Done | Failed):
                lost = [Lost(worker, "it held more memory than its share", False)] if answer.retire else []
                if lost:
                    self.replace()
                return [Finished(worker, answer), *lost]
            if answer != "gone":
                self.replace()
            return [Lost(worker, "its process died", charged=answer == "charged")]
        return []

    def kill(self, worker: str) -> None:
        self.killed.append(worker)
        del self._running[worker]
        self.replace()

    def stop(self) -> None:
        self.stopped = True

    def replace(self) -> None:
        self.workers_ever += 1
        self._ready.append(f"w{self.workers_ever}")


@contextmanager
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch, seconds: float = 30.0) -> Iterator[str]:
    """Fails when a process that was started inside still runs `seconds` after the end, or some other one
    that it started: all of them inherit the environment variable whose value is yielded."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("ROBUSTSWEEP_TEST_MARK", mark)
    yield mark
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}, f"left behind: {left}"


def marked(mark: str) -> dict[int, str]:
    """The processes that inherited the mark, this one aside: id and command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"ROBUSTSWEEP_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it has just ended, or is somebody else's
            continue
    return {pid: command for pid, command in found.items() if pid != os.getpid() and command}
