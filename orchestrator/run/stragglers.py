"""Whose unit is worth a copy on an idle worker; `python -m benchmarks simulation` says what that brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

OVERDUE = 2.0
"""A unit is worth a copy once it has run so many times as long as units of its kind do on the whole."""

SECONDS = 5.0
"""And at least so long: a copy loads and traces a victim first, which takes seconds."""


def stragglers(
    running: Mapping[str, tuple[Mapping[str, int], float]],
    now: float,
    expected: Callable[[Mapping[str, int]], float | None],
) -> list[str]:
    """The workers whose units are overdue, by the most seconds first.

    `running` as `SweepState` has it: what work each is on, and since when. `expected` is how many seconds
    work takes; of work that nothing is known of (None), and of none at all, nothing is said.
    """
    late = []
    for worker, (work, begun) in running.items():
        usual = expected(work) if work else None
        if usual is not None and now - begun > max(OVERDUE * usual, SECONDS):
            late.append((usual - (now - begun), worker))
    return [worker for _, worker in sorted(late)]
