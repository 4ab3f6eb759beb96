"""The runs into an output folder: which of them is the latest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.folder import Store
from tests.support.sweeps import sweep, write_grid
from workers import layout


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "moods.yaml")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_runs_are_ordered_by_number_whatever_the_clock_says(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, zone: Any = None) -> datetime:
            return datetime.now(zone) + timedelta(days=1)

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.store.folder.datetime", Ahead)
        sweep(grid, output)  # by a driver whose clock is a day ahead
    later = sweep(grid, output, ["epsilons=[0.2]"])
    store = Store(str(output))
    assert store.run_ids()[-1] == later.run_id
    assert [layout.run_number(run_id) for run_id in store.run_ids()] == [1, 2]
    assert store.wanted()["epsilon"].to_pylist() == [0.2]
    failing = write_grid(output.parent / "moods.yaml", ["raise"])
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.store.folder.datetime", Ahead)
        assert sweep(failing, output).exit_code == 1
    assert sweep(failing, output, retry_failed=True, runner="tests.support.runners:MadeUp").exit_code == 0
    assert [failure.final for failure in store.failures()] == [False] * 4


def test_two_drivers_at_once_stay_apart(output: Path) -> None:
    store = Store(str(output))
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(stack.enter_context, Store(str(output)).new_run()) for _ in range(40)]
        numbers = sorted(layout.run_number(run.result()) for run in runs)
        assert numbers == list(range(1, 41))
        with store.new_run() as run_id:
            assert layout.run_number(run_id) == 41
    assert store.folder.files("runs") == []  # none of them began
