"""What a plan will take: only from what was timed, on the same device, and what was not is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from orchestrator import show, show_costs
from orchestrator.grid.load import load_grid
from orchestrator.overview import hours_of_all, plan_record, status_record
from orchestrator.plan.cost import Basis, Cost, Timed, TimedTraining, estimate, kind_of_victim
from orchestrator.plan.units import Plan
from orchestrator.run.history import costs, timed
from orchestrator.run.prepare import Prepared, prepare
from orchestrator.run.progress import duration
from orchestrator.run.usage import UNKNOWN, Usage
from orchestrator.store.folder import Store
from tests.support.sweeps import sweep, write_grid
from workers.recipe import Recipe
from workers.victims.cache import VictimCache

HERE = "none (CPU)"  # what made-up shards were made on


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two attacks at two epsilons on 100 digits, in units of 50 that take half a second, as shards say."""
    return write_grid(tmp_path / "g.yaml", ["work", "other"])


def planned(grid: Path, output: Path | str, *changes: str) -> Prepared:
    return prepare(load_grid(str(grid), changes), str(output))


def found(prepared: Prepared, *others: Path) -> list[Cost]:
    cache = str(Path(prepared.store.location).parent / "no cache")
    return costs(prepared, cache=cache, others=[Store(str(each)) for each in others])


def test_more_examples_take_more_hours(grid: Path, output: Path) -> None:
    sweep(grid, output)
    [cost] = found(planned(grid, output, "examples=400"))
    assert cost.device == HERE
    assert cost.hours * 3600 == pytest.approx(2 * 0.5 / 50 * 300)
    assert (cost.exact, cost.alike, cost.rough, cost.unknown) == (4, 0, 0, 0)
    # Made-up victims were trained in another century, on nobody knows what.
    assert (cost.trainings, cost.unknown_trainings, cost.cached) == (0, 1, 0)
    assert found(planned(grid, output)) == [], "nothing is left to do"


def test_another_seed_takes_as_long_and_another_network_is_unknown(grid: Path, output: Path) -> None:
    sweep(grid, output)
    [cost] = found(planned(grid, output, "seeds=[0, 1]", "models=[small_cnn, wide_cnn]"))
    assert (cost.exact, cost.alike, cost.unknown) == (0, 4, 8)
    assert cost.hours * 3600 == pytest.approx(4 * 0.5)
    assert found(planned(grid, output, "models=[{name: small_cnn, width: 64}]")) == []


def test_another_attack_or_dataset_or_defence_is_unknown(grid: Path, output: Path, tmp_path: Path) -> None:
    sweep(grid, output)
    assert found(planned(grid, tmp_path / "new", "defences=[jpeg]"), output) == []
    [victim] = plan_of(grid, tmp_path).todo
    larger = replace(victim.victim, dataset=replace(victim.victim.dataset, size=96))
    assert kind_of_victim(larger) != kind_of_victim(victim.victim)
    new = write_grid(tmp_path / "new.yaml", ["work", "slow"])
    [cost] = found(planned(new, output, "examples=200"))
    assert (cost.exact, cost.unknown) == (2, 2)


def test_other_sweeps_count_where_they_are_named(grid: Path, output: Path, tmp_path: Path) -> None:
    sweep(grid, output)
    assert found(planned(grid, tmp_path / "new")) == []
    [cost] = found(planned(grid, tmp_path / "new"), output)
    assert (cost.exact, cost.hours * 3600) == (4, pytest.approx(2.0))


def test_units_of_another_size_are_a_rough_basis(grid: Path, output: Path, tmp_path: Path) -> None:
    sweep(grid, output)
    for change, rough in (("slice=90", 0), ("slice=250", 4), ("slice=10", 4)):
        [cost] = found(planned(grid, tmp_path / "new", change, "examples=500"), output)
        assert cost.rough == rough, change
    [cost] = found(planned(grid, tmp_path / "new", "epsilons=[0, 0.1, 0.2, 0.3, 0.4]"), output)
    assert cost.rough == cost.exact == 10


def plan_of(grid: Path, tmp_path: Path, *changes: str) -> Plan:
    return planned(grid, tmp_path / "none", *changes).plan


def basis(plan: Plan, seconds: float, **more: Any) -> Basis:
    """As if each attack of a plan had been timed on its victim on one unit of 50 examples."""
    made = Basis(**more)
    for victim, runs in plan.victims:
        for run in runs:
            time = made.exact.setdefault((victim.victim_id, run.attack.attack_id), Timed())
            values = {"seconds": seconds, "visible": 0.0, "setup": 0.0}
            time.add(victim.victim_id, **values, start=0, stop=50, cells=len(run.cells))
    return made


def test_devices_are_never_mixed(grid: Path, tmp_path: Path) -> None:
    plan = plan_of(grid, tmp_path)
    slow, fast = basis(plan, 10.0), basis(plan, 0.1)
    del fast.exact[next(iter(fast.exact))]
    first, second = estimate(plan, {"A100 (GPU)": fast, "EPYC (CPU)": slow})
    assert (first.device, first.unknown, first.hours * 3600) == ("EPYC (CPU)", 0, pytest.approx(40.0))
    assert (second.device, second.unknown, second.hours * 3600) == ("A100 (GPU)", 2, pytest.approx(0.2))


def test_what_does_not_grow_with_the_examples_is_not_multiplied() -> None:
    """Of 50 examples, one second each, tracing takes 30 s and visibility 50 s: 5,000 take no 13,000 s."""
    time = Timed()
    time.add("v", seconds=50.0, visible=50.0, setup=30.0, start=0, stop=50, cells=1)
    assert time.takes(0, 50, 1) == pytest.approx(130.0)
    assert time.takes(0, 5000, 1) == pytest.approx(5000.0 + 64.0 + 30.0)
    assert time.takes(1000, 1050, 1) == pytest.approx(50.0 + 30.0)
    time.add("w", seconds=50.0, visible=0.0, setup=0.0, start=100, stop=150, cells=1)
    assert time.takes(1000, 1050, 1) == pytest.approx(50.0 + 15.0), "which one of two victims needs"


def test_a_training_takes_as_its_images_and_epochs(grid: Path, tmp_path: Path) -> None:
    [victim] = plan_of(grid, tmp_path).todo
    short = Recipe(epochs=2, examples=500)
    time = TimedTraining(json.loads(json.dumps(short.__dict__)), train_size=1000, epochs=2, seconds=10.0)
    for recipe, seconds in (
        (short, 10.0),
        (Recipe(epochs=20, examples=500), 100.0),
        (Recipe(epochs=2), 20.0),
        (Recipe(epochs=2, examples=9000), 20.0),
    ):
        assert time.takes(replace(victim.victim, recipe=recipe)) == pytest.approx(seconds)


def test_one_that_stopped_early_says_what_the_same_recipe_takes() -> None:
    recipe = Recipe(epochs=100, early_stopping=2)
    time = TimedTraining(json.loads(json.dumps(recipe.__dict__)), train_size=1000, epochs=5, seconds=10.0)
    from tests.support.victims import some_victim

    assert time.takes(replace(some_victim("v"), recipe=recipe)) == 10.0


def test_trainings_are_timed_where_the_shards_say(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were trained in the folder; with another batch size, or from the cache, nothing is known."""
    sweep(grid, output)
    [path] = (output / "pins").glob("*.json")
    recipe = {"epochs": 5, "batch_size": 64, "optimizer": "adam", "augmentation": "none", "examples": None}
    pin = json.loads(path.read_text())
    manifest = pin.get("manifest", pin)
    manifest |= {
        "seconds": 100.0,
        "history": [{}] * 5,
        "recipe": recipe,
        "trained_at": "2100-01-01T00:00:00+00:00",
    }
    manifest["dataset"]["train_size"] = 1297
    path.write_text(json.dumps(pin))
    [cost] = found(planned(grid, output, "seeds=[1, 2]"))
    assert (cost.trainings, cost.unknown_trainings) == (2, 0)
    assert cost.hours * 3600 == pytest.approx(2 * 100 + 8 * 0.5)
    [cost] = found(planned(grid, output, "seeds=[1, 2]", "train.batch_size=8"))
    assert (cost.trainings, cost.unknown_trainings) == (0, 2)
    monkeypatch.setattr(VictimCache, "find", lambda self, victim_id: object())
    [cost] = found(planned(grid, output, "seeds=[1, 2]"))
    assert (cost.trainings, cost.cached, cost.unknown_trainings) == (0, 2, 0)
    assert cost.hours * 3600 == pytest.approx(8 * 0.5)


def test_survivors_are_no_basis(grid: Path, output: Path) -> None:
    """They were hard to break: others break sooner, and a broken image is left alone."""
    sweep(grid, output)
    store = Store(str(output))
    accepted = store.accepted_shards()
    accepted.infos = [replace(info, attacked=7) for info in accepted.infos]
    assert timed([(store, accepted)]) == {}


def test_users_models_of_one_name_are_told_apart(grid: Path, tmp_path: Path) -> None:
    [victim] = plan_of(grid, tmp_path).todo
    mine, other = (
        replace(victim.victim, model=replace(victim.victim.model, factory="mine:make", source=text))
        for text in ("a", "b")
    )
    assert kind_of_victim(mine) != kind_of_victim(other)
    assert kind_of_victim(mine) == kind_of_victim(replace(mine, seed=3, victim_id="another"))


# -- what people read


def text(console: Console) -> str:
    return str(console.export_text())


def test_the_plan_says_hours_money_and_what_is_unknown(grid: Path, output: Path) -> None:
    prepared = planned(grid, output)
    console = Console(record=True, width=200)
    show_costs.costs(console, prepared.plan, [], None)
    assert text(console).startswith("hours: unknown, as nothing like it has been timed here")
    sweep(grid, output)
    prepared = planned(grid, output, "examples=400", "models=[small_cnn, wide_cnn]")
    known = found(prepared)
    show_costs.costs(console, prepared.plan, known, 500.0)
    line = text(console).strip()
    assert line.startswith(
        "hours: at least 6 CPU-seconds on none, 0.83 at 500 an hour (4 of 8 cells by earlier"
    )
    assert "4 cells unknown, 2 trainings unknown" in line
    [said] = plan_record(prepared, known, 500.0)["cost"]
    assert (said["unknown"], said["price"]) == (4, pytest.approx(500 * 6 / 3600))


def test_little_is_said_in_small_units() -> None:
    assert show_costs.hours(4 / 3600, "EPYC (CPU)") == "4 CPU-seconds on EPYC"
    assert show_costs.hours(0.05, "A (b) c (GPU)") == "3.0 GPU-minutes on A (b) c"
    assert show_costs.hours(1234.5, "H100 (GPU)") == "1,234 GPU-hours on H100"
    assert [show_costs.money(amount) for amount in (0.0, 0.001, 12.345)] == [
        "0.00",
        "less than 0.01",
        "12.35",
    ]


def test_workers_are_counted_while_they_are_held() -> None:
    usage = Usage()
    for worker, since in (("a", 0.0), ("b", 0.0), ("c", 1800.0)):
        usage.began(worker, since)
    usage.learnt("a", "H100 (GPU)", 0.5)
    usage.ended("a", 3600.0)
    usage.ended("a", 7200.0)
    usage.ended("never ready", 7200.0)
    usage.learnt("b", "EPYC (CPU)", 4.0)
    assert usage.hours(7200.0) == {"EPYC (CPU)": 8.0, "H100 (GPU)": 0.5, UNKNOWN: 1.5}
    assert show_costs.used({"H100 (GPU)": 0.5, "EPYC (CPU)": 8.0}, 2.0) == (
        "0.50 GPU-hours on H100 and 8.00 CPU-hours on EPYC, 17.00 at 2 an hour"
    )


def test_status_and_summary_say_what_was_used(grid: Path, output: Path) -> None:
    ticks = iter(range(0, 10**9, 100))
    summary = sweep(grid, output, clock=lambda: float(next(ticks)))
    used = summary.state.usage.hours(summary.state.seconds)
    assert list(used) == [UNKNOWN] and used[UNKNOWN] > 100 / 3600
    store = Store(str(output))
    assert hours_of_all(store) == (used, 1)
    assert status_record(store)["used"] == status_record(store)["used_by_all"] == used
    console = Console(record=True, width=120)
    show.status(console, store, 10.0)
    shown = text(console)
    assert "CPU-hours on unknown" in shown and "at 10 an hour" in shown
    show.summary(console, planned(grid, output), summary, 10.0)
    said = text(console)
    assert "used " in said
    start = summary.state.ready_after
    assert start and 0 < start < summary.state.seconds
    assert f", {duration(start)} of it until a worker was ready (" in said
    assert status_record(store)["ready_after"] == start
    sweep(grid, output, ["examples=200"], clock=lambda: float(next(ticks)))
    both, runs = hours_of_all(store)
    assert runs == 2 and both[UNKNOWN] > used[UNKNOWN]
    assert yaml.safe_load(grid.read_text())["examples"] == 100
