"""Sweeps under fire, one fault of each kind: the whole of it is `make chaos`, and docs/reliability.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.chaos.faults import Trial, trials
from benchmarks.chaos.places import impossible
from benchmarks.chaos.trial import Performance, undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize("trial", trials(1, smoke=True), ids=lambda trial: trial.name)
def test_nothing_is_lost(trial: Trial, tmp_path: Path) -> None:
    without = impossible()
    if trial.disk and without:
        pytest.skip(without["full"])
    faults = tuple(fault for fault in trial.faults if fault.kind not in without)
    said: list[str] = []
    expected = undisturbed(trial, tmp_path)
    found = Performance(replace(trial, faults=faults), tmp_path / "trial", expected, said.append).run()
    assert found.problems == []
    assert found.rows == pq.read_metadata(expected).num_rows
    assert found.findings.looks and found.findings.asked
    assert len(found.faults) + found.missed.total() == len(faults)
    assert len(found.faults) >= len(faults) - 1, (said, found.missed)


def test_a_broken_promise_is_noticed(tmp_path: Path) -> None:
    (trial,) = trials(1, only=["a file appears before it is whole"])
    found = Performance(trial, tmp_path / "trial", undisturbed(trial, tmp_path), str).run()
    assert found.findings.partial and found.problems
