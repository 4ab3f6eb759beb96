"""One number that a benchmark read off, and how it is printed."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A measured number; `at_least` and `at_most` are its target, where it has one."""

    what: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def missed(self) -> bool:
        below = self.at_least is not None and self.value < self.at_least
        return below or (self.at_most is not None and self.value > self.at_most)

    def __str__(self) -> str:
        line = f"  {self.what:<72} {_number(self.value):>10} {self.unit:<8}"
        for sign, limit in (("≥", self.at_least), ("≤", self.at_most)):
            if limit is not None:
                line += f" target {sign} {_number(limit)}: {'MISSED' if self.missed else 'met'}"
        return line.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def alternate(ways: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """Run every way once, then all again, `repeats` times: on a shared machine, only what ran side by side
    can be compared."""
    read: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            read[name].append(way())
    return read


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios of the runs that stood side by side."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


@dataclass(frozen=True, slots=True)
class Child:
    """What a child process used, with everything that it waited for."""

    cpu_seconds: float
    wall_seconds: float
    exit_code: int


def child(arguments: Sequence[str], *, log: str = os.devnull) -> Child:
    """Run this Python with `arguments`, its output going to `log`."""
    begun = time.perf_counter()
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begun
    return Child(usage.ru_utime + usage.ru_stime, seconds, os.waitstatus_to_exitcode(status))


def fresh(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function in a process of its own, which has nothing left over from before."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments, **options).result()
