"""Telling a live run from a dead one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator import show
from orchestrator.run import status
from orchestrator.run.progress import SweepState
from orchestrator.run.status import StatusWriter, life, live_runs, settled_life
from orchestrator.store.folder import Store
from tests.support.sweeps import NOW, Quiet, record, sweep, write_grid


def gone() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "live"),
        ({"state": "finished"}, "ended"),
        ({"state": "interrupted", "pid": gone()}, "ended"),
        ({"pid": gone()}, "dead"),
        ({"host": "elsewhere", "pid": gone()}, "live"),  # its process cannot be asked for
        ({"updated_at": (NOW - timedelta(seconds=60)).isoformat()}, "unknown"),
        ({"updated_at": (NOW + timedelta(seconds=60)).isoformat()}, "unknown"),
        ({"updated_at": "yesterday"}, "unknown"),
    ],
)
def test_life_at_one_look(changes: dict[str, Any], expected: str) -> None:
    assert life(record(**changes), now=NOW) == expected


@pytest.mark.parametrize("content", ["", "{}", '{"state": "running", "cells": 8}', "[1]", "null"])
def test_a_status_that_is_not_whole_is_none(tmp_path: Path, content: str) -> None:
    sweep(write_grid(tmp_path / "moods.yaml"), tmp_path / "out")
    store = Store(str(tmp_path / "out"))
    [run_id] = store.run_ids()
    (tmp_path / "out" / "runs" / run_id / "status.json").write_text(content)
    assert store.read_status(run_id) is None
    assert live_runs(store) == []
    assert f"run {run_id} has left no status that can be read" in shown(store)


@pytest.mark.parametrize(("moves", "expected"), [(True, "live"), (False, "dead")])
def test_silence_is_watched_for_a_moment(tmp_path: Path, moves: bool, expected: str) -> None:
    """A clock that is minutes off looks like silence; a sequence number that moves is life all the same."""
    store = Store(str(tmp_path))
    silent = record(host="elsewhere")
    store.write_status(silent)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        store.write_status(replace(silent, sequence=3 + moves))

    assert settled_life(store, silent, wait=wait) == expected
    assert waited[0] > status.WRITE_SECONDS


def test_the_writer_counts_and_has_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "WRITE_SECONDS", 0.01)
    store, state = Store(str(tmp_path)), SweepState("g", 1, 0, 2)
    writer = StatusWriter(store, "r", state)
    writer.start()
    first = store.read_status("r").sequence
    while store.read_status("r").sequence < first + 3:  # a long unit in this process is not silence
        pass
    state.state = "finished"
    writer.close()
    assert store.read_status("r").state == "finished"
    assert life(store.read_status("r")) == "ended"


def test_a_status_that_cannot_be_written_does_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    writer = StatusWriter(Store(str(tmp_path)), "r", SweepState("g", 1, 0, 2))
    writer.start()
    writer.close()
    assert Store(str(tmp_path)).read_status("r") is None


def test_a_snapshot_can_be_taken_while_the_run_goes_on(tmp_path: Path) -> None:
    state, stop, errors = SweepState("g", 1, 0, 2), threading.Event(), []
    writer = StatusWriter(Store(str(tmp_path)), "r", state)

    def look() -> None:
        while not stop.is_set():
            try:
                writer.status()
            except RuntimeError as error:  # changed size during iteration
                errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    looker = threading.Thread(target=look)
    looker.start()
    for i in range(30_000):
        state.workers[f"w{i % 500}"] = "busy"
        state.failures.append("x")
        state.workers.pop(f"w{(i * 7) % 500}", None)
    stop.set()
    looker.join()
    sys.setswitchinterval(before)
    assert errors == []


def test_a_second_driver_is_warned(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml")
    sweep(grid, tmp_path / "out")
    store = Store(str(tmp_path / "out"))
    assert live_runs(store) == []
    [run_id] = store.run_ids()
    alive = record(run_id=run_id, updated_at=datetime.now(UTC).isoformat())
    store.write_status(alive)
    progress = Quiet()
    sweep(grid, tmp_path / "out", ["examples=150"], progress=progress)
    [warning] = progress.said
    assert f"run {run_id} on {socket.gethostname()} is writing to this folder too" in warning


def shown(store: Store) -> str:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    show.status(console, store)
    return console.export_text()


def test_what_status_shows(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["work", "raise"])
    sweep(grid, tmp_path / "out")
    store = Store(str(tmp_path / "out"))
    [run_id] = store.run_ids()
    text = shown(store)
    assert run_id in text
    assert "finished" in text
    assert "2 of 4 done" in text
    assert "3 of 5 done, 2 failed" in text
    assert "raise linf on small_cnn on digits [0, 50): ValueError: this unit raises" in text
    store.write_status(record(run_id=run_id, pid=gone()))
    assert "dead: its process is gone; the same run command resumes it" in shown(store)
    alive = {"updated_at": datetime.now(UTC).isoformat(), "workers": {"worker-1": "fgsm", "worker-2": ""}}
    store.write_status(record(run_id=run_id, **alive))
    assert "running" in shown(store)
    assert "worker-2" in shown(store)


def test_a_run_that_found_nothing_to_do_is_finished_too(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml", epsilons=[0, 0.1, 0.2])
    sweep(grid, tmp_path / "out")
    assert sweep(grid, tmp_path / "out", ["epsilons=[0]"]).state.units == 0
    store = Store(str(tmp_path / "out"))
    assert len(store.run_ids()) == 2
    text = shown(store)
    assert "finished" in text
    assert "1 of 1 done" in text
