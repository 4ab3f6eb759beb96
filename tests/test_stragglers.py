"""Copies of units that take too long: which units get one, and that nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.run.scheduler import Scheduler
from orchestrator.run.stragglers import OVERDUE, SECONDS, stragglers
from orchestrator.run.sweep import Summary
from orchestrator.run.work import Outcome
from orchestrator.store.folder import Store
from tests.support.sweeps import Answer, Scripted, rows, sweep, times_counted, write_grid
from tests.test_scheduler import ask, scheduler, victim_work
from workers.unit import Failed, Training, Unit, WorkerSettings

# -- which


def test_the_most_overdue_come_first_and_nothing_is_said_of_the_unknown() -> None:
    usual = {"fgsm": 0.1, "bim": 1.0}
    running = {
        "late": ({"bim": 10}, 100.0 - OVERDUE * 10 - 1),
        "later": ({"bim": 10}, 0.0),
        "in time": ({"bim": 10}, 100.0 - OVERDUE * 10 + 1),
        "too short to copy": ({"fgsm": 1}, 100.0 - SECONDS + 1),
        "new": ({"square": 10}, 0.0),
        "a copy": ({}, 0.0),
    }

    def expected(work: object) -> float | None:
        assert isinstance(work, dict)
        [(kind, amount)] = work.items()
        return usual[kind] * amount if kind in usual else None

    assert stragglers(running, 100.0, expected) == ["later", "late"]


# -- in the scheduler


def both(*, training: bool = False, **limits: int) -> Scheduler:
    """`x` runs a unit, and `y` a copy of it."""
    made = scheduler(victim_work("a", 1, training=training), workers="xy", **limits)
    if training:
        assert ask(made, "x") == "a/train"
        made.finish("x", ok=True)
    assert ask(made, "x") == "a/0"
    assert ask(made, "y") is None
    copy = made.copy("y", "x")
    assert copy is not None and copy.unit_id == "a/0"
    return made


@pytest.mark.parametrize("first", ["x", "y"])
def test_the_first_to_finish_counts_and_nobody_waits_for_the_other(first: str) -> None:
    made, other = both(), {"x": "y", "y": "x"}[first]
    assert (made.waiting, made.running, made.done) == (0, 1, 0)
    outcome = made.finish(first, ok=True)
    assert outcome == Outcome(outcome.unit, "done", 1, also=other)
    assert made.finished and (made.running, made.done) == (0, 1)
    assert made.finish(other, ok=False).state == "copy"
    assert (made.done, made.failed, made.waiting) == (1, 0, 0)


def test_a_unit_fails_when_both_have_and_that_is_one_attempt() -> None:
    made = both(max_attempts=2)
    assert made.finish("y", ok=False).state == "copy"
    outcome = made.finish("x", ok=False)
    assert (outcome.state, outcome.attempt, outcome.also) == ("retry", 1, None)
    assert ask(made, "y") == "a/0"
    assert made.finish("y", ok=False).state == "failed"


def test_a_failure_is_charged_though_the_other_was_lost_with_its_machine() -> None:
    made = both(max_attempts=1)
    assert made.finish("x", ok=False).state == "copy"
    outcome = made.lose("y", charged=False)
    assert outcome is not None and (outcome.state, outcome.attempt) == ("failed", 1)


def test_two_that_are_lost_with_their_machines_are_one_loss() -> None:
    made = both(max_attempts=1, max_losses=1)
    for worker in "xy":
        made.lose(worker, charged=False)
    assert (made.waiting, made.failed) == (1, 0)
    made.join("x")
    assert ask(made, "x") == "a/0"


def test_a_training_is_never_copied() -> None:
    made = scheduler(victim_work("a", 1, training=True), workers="xy")
    assert ask(made, "x") == "a/train"
    assert made.copy("y", "x") is None


def test_no_third_copy_none_where_it_failed_and_none_of_what_is_done() -> None:
    made = both()
    made.join("z")
    assert made.copy("z", "x") is None
    made.finish("y", ok=False)
    assert made.copy("y", "x") is None
    assert made.copy("z", "x") is not None
    made.finish("z", ok=True)
    assert made.copy("z", "x") is None, "x runs on, for nothing"
    with pytest.raises(ValueError, match="x still runs a/0"):
        made.copy("x", "x")


# -- in a sweep


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(
    output: Path, answer: Callable[[Unit, int, Scripted], Answer], *, workers: int = 2, **options: object
) -> tuple[Summary, Scripted]:
    """Ten units of 10 examples in two cells; `answer` ends each run of a unit, 1 the first, 2 a copy."""
    grid = write_grid(output.parent / "moods.yaml", slice=10)
    settings = WorkerSettings(str(output), str(output.parent / "victims"), "r")
    backend = Scripted(settings, lambda unit, run: answer(unit, run, backend), workers=workers)
    summary = sweep(grid, output, clock=backend.clock, pool=lambda *_, **__: backend, **options)
    return summary, backend


def last(unit: Unit) -> bool:
    return not isinstance(unit, Training) and unit.start == 90


def nothing_twice(summary: Summary, output: Path) -> None:
    state = summary.state
    assert (summary.exit_code, state.units_done, state.units_failed, state.retries) == (0, 11, 0, 0)
    assert state.cells_done == 2 and summary.failures == []
    assert times_counted(rows(output)) == {1: 200}
    assert Store(str(output)).failures() == []
    assert state.estimate.complete and not any(state.estimate._left().values())


def test_a_unit_that_hangs_is_done_by_a_copy_and_the_sweep_ends(output: Path) -> None:
    summary, backend = run(output, lambda u, n, b: None if last(u) and n == 1 else b.runner(u))
    nothing_twice(summary, output)
    assert backend.attempts.most_common(1)[0][1] == 2 and backend.attempts.total() == 12
    assert backend.killed == []


def test_a_copy_that_fails_does_not_fail_the_unit(output: Path) -> None:
    def answer(unit: Unit, run: int, backend: Scripted) -> Answer:
        if not last(unit):
            return backend.runner(unit)
        if run == 2:
            return Failed(unit_id=unit.unit_id, error="ValueError: not here")
        return backend.runner(unit) if backend.seconds > 60 else None

    summary, backend = run(output, answer)
    nothing_twice(summary, output)
    assert backend.attempts.total() == 12, "nor is it copied to where it failed"


def test_of_two_that_are_both_done_one_counts(output: Path) -> None:
    """The first run ends a second after its copy, while another unit is still to be done."""

    def answer(unit: Unit, run: int, backend: Scripted) -> Answer:
        if isinstance(unit, Training) or unit.start < 80:
            return backend.runner(unit)
        if run == 1 and backend.seconds < (40 if unit.start == 90 else 60):
            return None
        return backend.runner(unit) if run == 1 or backend.seconds > 38 else None

    summary, backend = run(output, answer, workers=4)
    nothing_twice(summary, output)
    assert backend.attempts.total() > 11
    accepted = Store(str(output)).accepted_shards()
    assert {info.start for info in accepted.twice} <= {80, 90}


def test_a_worker_that_is_lost_with_a_copied_unit_costs_nothing(output: Path) -> None:
    def answer(unit: Unit, run: int, backend: Scripted) -> Answer:
        if not last(unit):
            return backend.runner(unit)
        if run == 1:
            return "charged" if backend.seconds > 40 else None
        return backend.runner(unit) if backend.seconds > 50 else None

    nothing_twice(run(output, answer)[0], output)


def test_what_fails_everywhere_fails(output: Path) -> None:
    def answer(unit: Unit, run: int, backend: Scripted) -> Answer:
        if not last(unit):
            return backend.runner(unit)
        late = backend.seconds > 60
        return Failed(unit_id=unit.unit_id, error="ValueError: nowhere") if run > 1 or late else None

    summary, _ = run(output, answer)
    state = summary.state
    assert (summary.exit_code, state.units_done, state.units_failed, state.retries) == (1, 10, 1, 1)
    records = Store(str(output)).failures()
    assert [(each.attempt, each.final) for each in records] == [(1, False), (2, True)]


def test_a_training_that_takes_long_is_left_to_its_worker(output: Path) -> None:
    def answer(unit: Unit, run: int, backend: Scripted) -> Answer:
        return None if isinstance(unit, Training) and backend.seconds < 500 else backend.runner(unit)

    summary, backend = run(output, answer)
    nothing_twice(summary, output)
    assert backend.attempts.total() == 11
