"""What a person sees while a sweep runs."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from orchestrator.run.estimate import Estimate
from orchestrator.run.progress import (
    LiveProgress,
    PlainProgress,
    SweepState,
    draw,
    duration,
    make_progress,
    summary_line,
    time_left,
)


def state(**changes: object) -> SweepState:
    values = {"grid": "digits", "cells": 24, "cells_done": 6, "units": 10, **changes}
    return SweepState(**values)  # type: ignore[arg-type]


def halfway() -> Estimate:
    estimate = Estimate({"fgsm": 1000})
    estimate.done("fgsm", 250, 10.0)
    return estimate


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (4320, "1 h 12 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_goes_by_what_each_attack_has_taken() -> None:
    estimate = Estimate({"fast": 1000, "slow": 1000, "new": 100})
    assert estimate.seconds(2) is None and not estimate.complete
    estimate.done("fast", 500, 5.0)
    assert estimate.seconds(1) == pytest.approx(0.01 * (500 + 1000 + 100))
    estimate.done("slow", 500, 500.0)
    assert estimate.seconds(1) == pytest.approx(0.01 * 500 + 1.0 * 500 + 0.01 * 100)
    assert not estimate.complete
    assert estimate.seconds(4) == pytest.approx(estimate.seconds(1) / 4)
    estimate.dropped({"slow": 500, "new": 100})
    assert estimate.seconds(1) == pytest.approx(5.0) and estimate.complete
    assert estimate.seconds(0) is None


def test_trainings_are_time_left_too() -> None:
    estimate = Estimate({"fgsm": 1000}, {"train": 2, "load": 1})
    estimate.done("train", 1, 60.0)
    assert estimate.seconds(1) is None
    estimate.done("fgsm", 500, 5.0)
    assert (
        estimate.seconds(1) == pytest.approx(60.0 + 5.0) and not estimate.complete
    )  # nothing was loaded yet
    estimate.done("load", 1, 3.0)
    assert estimate.seconds(1) == pytest.approx(65.0) and estimate.complete


def test_a_lower_bound_is_called_one() -> None:
    assert (time_left(None, at_least=True), time_left(61, at_least=False)) == ("", "about 1 min 01 s left")
    unknown = Estimate({"fgsm": 1000, "bim": 10})
    unknown.done("fgsm", 250, 10.0)
    line = summary_line(state(seconds=60.0, estimate=unknown, workers={"w1": "fgsm"}))
    assert "at least 30 s left" in line


def test_time_left_does_not_grow_under_way() -> None:
    """Of two attacks, one a hundred times as dear, the cheap one first: once both are known, it is right."""
    estimate, seconds = Estimate({"cheap": 100, "dear": 100}), []
    for attack, cost in (("cheap", 0.01), ("dear", 1.0)):
        for _ in range(10):
            estimate.done(attack, 10, 10 * cost)
            seconds.append(estimate.seconds(1))
    assert seconds[10:] == pytest.approx([90.0 - 10.0 * i for i in range(10)])


def test_what_runs_says_how_long_its_kind_takes_at_least() -> None:
    """Four units of an attack that has never ended, the first for a minute now: not "1 s left" for ever."""
    estimate = Estimate({"cheap": 100, "dear": 400})
    assert estimate.seconds(1, [({"dear": 100}, 60.0)]) == pytest.approx(3 * 60.0)
    estimate.done("cheap", 100, 1.0)
    running = [({"dear": 100}, 60.0)]
    assert estimate.seconds(1, running) == pytest.approx(3 * 60.0) and not estimate.complete
    estimate.done("dear", 100, 60.0)
    assert estimate.seconds(1, [({"dear": 100}, 20.0)]) == pytest.approx(3 * 60.0 - 20.0)
    assert estimate.seconds(2, [({"dear": 100}, 90.0)]) == pytest.approx(3 * 90.0 / 2 - 45.0)


def test_time_left_falls_while_the_last_unit_runs() -> None:
    estimate = Estimate({"fgsm": 1000})
    estimate.done("fgsm", 900, 90.0)
    left = [estimate.seconds(2, [({"fgsm": 100}, seconds)]) for seconds in (0.0, 4.0, 9.0, 10.0, 30.0)]
    assert left == pytest.approx([10.0, 6.0, 1.0, 0.0, 0.0])


def test_a_minute_is_left_is_never_said_for_ever() -> None:
    unknown = Estimate({"fgsm": 10, "bim": 10})
    unknown.done("fgsm", 10, 0.1)
    line = summary_line(state(seconds=60.0, estimate=unknown, workers={"w1": "bim"}))
    assert "at least" not in line and "left" not in line


@pytest.mark.parametrize("workers", [{}, {"w1": "", "w2": ""}])
def test_no_time_is_left_while_nothing_runs(workers: dict[str, str]) -> None:
    idle = state(seconds=60.0, estimate=halfway(), workers=workers)
    assert idle.seconds_left is None


def test_a_line_says_how_far_it_is() -> None:
    line = summary_line(
        state(
            units_done=4,
            seconds=60.0,
            estimate=halfway(),
            workers={"worker-1": "fgsm"},
            units_failed=2,
            note="finishing what is running; once more stops now",
            waiting="starting workers",
        )
    )
    assert line == (
        "digits: 6/24 cells, 4/10 units, 1 min 00 s so far, about 30 s left, 2 failed, "
        "starting workers; finishing what is running; once more stops now"
    )


def test_a_line_has_no_hole_where_no_time_is_left() -> None:
    nearly = Estimate({"fgsm": 1000})
    nearly.done("fgsm", 999, 10.0)
    line = summary_line(state(seconds=60.0, estimate=nearly, workers={"w1": "fgsm"}, retries=1))
    assert line == "digits: 6/24 cells, 0/10 units, 1 min 00 s so far, 1 tried again"


def test_plain_lines_come_now_and_then_and_at_the_end() -> None:
    out, now = io.StringIO(), [0.0]
    progress = PlainProgress(Console(file=out, width=200), clock=lambda: now[0])
    shown = state()
    with progress:
        for now[0] in range(25):
            shown.seconds = now[0]
            shown.units_done = int(now[0]) // 5
            progress.show(shown)
        progress.say("[not markup] " + "long " * 60)
    lines = out.getvalue().splitlines()
    assert [line.split(", ")[2] for line in lines if line.startswith("digits")] == [
        "0 s so far",
        "10 s so far",
        "20 s so far",
        "24 s so far",
    ]
    assert lines[3].startswith("[not markup] long long")  # in one line, however long
    assert "\x1b" not in out.getvalue()


def test_the_end_is_not_said_twice() -> None:
    out = io.StringIO()
    with PlainProgress(Console(file=out, width=200), clock=lambda: 0.0) as progress:
        progress.show(state())
        progress.show(state())
    assert len(out.getvalue().splitlines()) == 1


def drawn(shown: SweepState, width: int = 110) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(draw(shown))
    return console.export_text()


def test_the_display_shows_workers_and_failures() -> None:
    text = drawn(
        state(
            units_done=4,
            seconds=61.0,
            workers={"worker-1": "fgsm linf on small_cnn on digits [0, 250)", "worker-2": ""},
            units_failed=1,
            failures=["bim linf on net on digits [0, 9): ValueError: [red]no markup[/]"],
            note="finishing what is running; once more stops now",
        )
    )
    assert "6/24 cells" in text
    assert "4/10 units" in text
    assert "1 min 01 s" in text
    assert "worker-1  fgsm linf on small_cnn on digits [0, 250)" in text
    assert "worker-2  idle" in text
    assert "1 failed" in text
    assert "ValueError: [red]no markup[/]" in text
    assert "once more stops now" in text


def test_the_display_stays_small() -> None:
    """However many workers and however long their units' names: a line each, and not more than a screen."""
    shown = state(
        workers={f"worker-{i}": "an attack with a long name " * 10 for i in range(1000)},
        units_failed=900,
    )
    shown.failures.extend(f"unit {i}: " + "long " * 100 for i in range(900))
    lines = drawn(shown).splitlines()
    assert len(lines) <= 24
    assert any("988 more workers" in line for line in lines)
    assert all(len(line) <= 110 for line in lines)


def test_a_terminal_gets_the_live_display_and_a_pipe_plain_lines() -> None:
    assert isinstance(make_progress(Console(file=io.StringIO(), force_terminal=True)), LiveProgress)
    assert isinstance(make_progress(Console(file=io.StringIO())), PlainProgress)


def test_the_live_display_leaves_standard_error_alone() -> None:
    """Ray's chatter goes to a log by way of standard error: it must not be drawn onto the display."""
    out = io.StringIO()
    before = sys.stderr
    with LiveProgress(Console(file=out, force_terminal=True, width=100)) as progress:
        assert sys.stderr is before
        progress.show(state())
        progress.say("one thing")
    assert "one thing" in out.getvalue()
    assert "6/24 cells" in out.getvalue()
