"""Every benchmark runs, at a size that says nothing about speed."""

import importlib
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from benchmarks import (
    affinity,
    costs,
    figures,
    layout,
    orchestration,
    planning,
    publishing,
    reports,
    requests,
    scales,
    shards,
    simulation,
    startup,
    tables,
)
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.reading import Child, Reading, alternate, median_ratio
from orchestrator.cli import app
from orchestrator.grid.load import load_grid
from orchestrator.run.prepare import prepare


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_that_can_be_named_has_a_measure(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_an_unknown_benchmark_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed"]) == 2
    assert "no benchmark speed; there are: startup, planning" in capsys.readouterr().err


def check(readings: list[Reading], count: int) -> None:
    assert len({reading.what for reading in readings}) == count
    assert all(isfinite(reading.value) and reading.value >= 0 for reading in readings)


def test_planning() -> None:
    check(planning.measure(cells=1000, repeats=1), 4)


def test_simulation() -> None:
    """Everything that can happen happens, and the scheduler comes to the end of it near what is ideal."""
    check(simulation.measure(victims=30, units=60, large=60, machines=3), 21)
    rough = simulation.Cluster(
        machines=4, workers=4, victims=40, units=60, slow=0.25, failing=0.02, away=3600.0
    )
    outcome = simulation.simulate(rough)
    assert outcome.units == 40 * 61
    assert outcome.lost and outcome.copies >= outcome.won > 0 and outcome.wasted > 0
    assert 1 <= outcome.ratio < 1.25
    assert simulation.simulate(rough, copies=False).makespan > outcome.makespan


def test_shards() -> None:
    def call(arguments: Sequence[str]) -> Child:
        return Child(1.0, 1.0, CliRunner().invoke(app, list(arguments)).exit_code)

    readings = shards.measure(shards=20, size=250, repeats=1, call=call)
    check(readings, 27)
    assert [reading.value for reading in readings if reading.what == "files"] == [10]


def test_requests() -> None:
    readings = requests.measure(units=3, slow=3)
    check(readings, 10)
    assert not any(reading.missed for reading in readings)


def test_startup() -> None:
    readings = startup.measure(repeats=1, shards=3, backend="inline")
    check(readings, 16)
    imports = [reading for reading in readings if "imports" in reading.what]
    assert len(imports) == 7
    assert not any(reading.missed for reading in imports)


@pytest.mark.ray
def test_affinity() -> None:
    readings = affinity.measure(units=4)
    check(readings, 4)
    assert not any(reading.missed for reading in readings)


@pytest.mark.ray
def test_orchestration() -> None:
    check(orchestration.measure(units=20, many=40, repeats=1, backend="inline"), 7)


def test_costs() -> None:
    """Half a second a unit, however small, is foretold too high by smaller ones, and called rough."""
    readings = costs.measure(few=50, many=200, runner="tests.support.runners:MadeUp", backend="inline")
    check(readings, 8)
    values = [reading.value for reading in readings]
    assert values[:5] == [pytest.approx(4.0), 30, pytest.approx(1.0), 30, 0]


@pytest.mark.tf
def test_scales() -> None:
    readings = scales.measure(data={"digits": (200, 1)}, kinds=("dense",), seeds=1)
    assert sum(reading.value for reading in readings) == 5 * 4  # scales, and what is asked of each network


def test_publishing() -> None:
    check(publishing.measure(units=6, repeats=1, backend="inline"), 6)


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
@pytest.mark.parametrize("model", layout.WORK)
def test_layout_measures_grids_with_work_for_every_worker(tmp_path: Path, dataset: str, model: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(layout._grid(dataset, layout.WORK[model])))
    plan = prepare(load_grid(str(path)), str(tmp_path / "output")).plan
    assert len(plan.victims) == 2
    assert plan.unit_count >= 16


def test_alternating_runs_are_compared_with_their_neighbours() -> None:
    order: list[str] = []

    def way(name: str, value: float) -> float:
        order.append(name)
        return value * len(order)

    read = alternate({"a": lambda: way("a", 2), "b": lambda: way("b", 1)}, repeats=2)
    assert order == ["a", "b", "a", "b"]
    assert read == {"a": [2, 6], "b": [2, 4]}
    assert median_ratio(read["a"], read["b"]) == 1.25


def test_a_reading_says_whether_its_target_is_met() -> None:
    rate = Reading(what="units", value=250, unit="units/s", at_least=300)
    assert rate.missed
    assert str(rate).endswith("units/s  target ≥ 300: MISSED")
    assert not Reading(what="CPU", value=0.3, unit="s", at_most=0.5).missed
    assert str(Reading(what="CPU", value=0.3, unit="s", at_most=0.5)).endswith("target ≤ 0.5: met")
    assert not Reading(what="ratio", value=0.5).missed


def test_reports() -> None:
    readings = reports.measure(repeats=1, victims=1, large=0)
    check(readings, 4)
    assert not readings[-1].missed


def test_figures() -> None:
    readings = figures.measure(repeats=1, victims=1, attacks=2)
    check(readings, 6)
    assert not readings[-1].missed


def test_tables() -> None:
    check(tables.measure(cells=200, attacks=20), 4)
