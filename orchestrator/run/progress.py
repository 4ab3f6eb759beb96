"""What a person sees while a sweep runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.run.estimate import Estimate
from orchestrator.run.usage import Usage
from orchestrator.store.records import RunState
from workers.unit import Preparation

_SHOWN_FAILURES = 5
_SHOWN_WORKERS = 12
_PLAIN_SECONDS = 10.0


@dataclass
class SweepState:
    """Where a run stands. Its size does not grow with the sweep."""

    grid: str
    cells: int  # of the grid, or of what --only asks for
    cells_done: int
    units: int  # of this run, trainings included
    units_done: int = 0
    units_failed: int = 0
    units_elsewhere: int = 0  # of those done, by other runs into the folder
    retries: int = 0
    prepared: Counter[Preparation] = field(default_factory=Counter)  # victims made ready, rather than found
    state: RunState = "running"
    note: str = ""  # "finishing what is running; Ctrl-C again stops now"
    waiting: str = ""  # why nothing runs: "waiting for workers"
    pool: str = ""  # how large it is, on a cluster: "2 of 4 workers on 3 machines (2 joined)"
    workers: dict[str, str] = field(default_factory=dict)  # worker -> what it is on
    trainings: dict[str, tuple[str, str]] = field(default_factory=dict)  # worker -> (label, how far)
    failures: deque[str] = field(
        default_factory=lambda: deque(maxlen=_SHOWN_FAILURES)
    )  # the latest, in words
    phases: dict[str, float] = field(default_factory=dict)  # seconds of all workers together, by phase
    estimate: Estimate = field(default_factory=Estimate)
    running: dict[str, tuple[Mapping[str, int], float]] = field(
        default_factory=dict
    )  # worker -> how much of which kind of work it is on, since so many `seconds`
    seconds: float = 0.0
    ready_after: float | None = None  # seconds until the first worker was ready
    usage: Usage = field(default_factory=Usage)

    @property
    def seconds_left(self) -> float | None:
        """None before there is anything to go by, and while nothing runs."""
        workers = self.workers.copy().values()
        running = [(work, self.seconds - begun) for work, begun in self.running.copy().values()]
        return self.estimate.seconds(len(workers), running) if any(workers) else None

    @property
    def notes(self) -> str:
        """What a person should know of the run as a whole."""
        return "; ".join(note for note in (self.waiting, self.note) if note)

    def on(self) -> dict[str, str]:
        """What each worker is on, and how far a training is. Another thread may ask."""
        trainings = self.trainings.copy()
        texts = {}
        for worker, label in self.workers.copy().items():
            training, text = trainings.get(worker, ("", ""))
            # What was written just after a training had ended says nothing of what came next.
            texts[worker] = f"{label}: {text}" if text and training == label else label
        return texts


def duration(seconds: float | None) -> str:
    """Seconds for people: "42 s", "3 min 20 s", "1 h 12 min"."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def time_left(seconds: float | None, *, at_least: bool) -> str:
    """For people; empty where nothing is known, and where all has run for longer than was to be expected."""
    if seconds is None or seconds < 1:
        return ""
    return f"{'at least' if at_least else 'about'} {duration(seconds)} left"


class Progress(Protocol):
    """Shows a `SweepState` now and then, and says single things at once."""

    def __enter__(self) -> Progress: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, state: SweepState) -> None:
        """The state has changed, or time has passed."""

    def say(self, text: str) -> None:
        """One line that stays."""


def make_progress(console: Console) -> Progress:
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """A line every ten seconds and at the end: for logs and pipes."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self._last: float | None = None
        self._state: SweepState | None = None
        self._printed = ""

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state:
            self._print(self._state)

    def show(self, state: SweepState) -> None:
        self._state = state
        now = self.clock()
        if self._last is None or now - self._last >= _PLAIN_SECONDS:
            self._last = now
            self._print(state)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _print(self, state: SweepState) -> None:
        line = summary_line(state)
        if line != self._printed:
            self._printed = line
            self.say(line)


class LiveProgress:
    """A bar, the workers and the latest failures, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self.console = console
        # Standard error is a log file while Ray runs: it must not come back onto the display.
        self._live = Live(console=console, refresh_per_second=4, transient=True, redirect_stderr=False)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, state: SweepState) -> None:
        self._live.update(draw(state))

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


def summary_line(state: SweepState) -> str:
    elsewhere = f" ({state.units_elsewhere:,} by other runs)" if state.units_elsewhere else ""
    parts = [
        f"{state.cells_done:,}/{state.cells:,} cells",
        f"{state.units_done:,}/{state.units:,} units{elsewhere}",
        f"{duration(state.seconds)} so far",
    ]
    if state.state == "running" and state.seconds_left is not None:
        parts.append(time_left(state.seconds_left, at_least=not state.estimate.complete))
    if state.pool and state.state == "running":
        parts.append(state.pool)
    if state.retries:
        parts.append(f"{state.retries:,} tried again")
    if state.units_failed:
        parts.append(f"{state.units_failed:,} failed")
    if state.notes:
        parts.append(state.notes)
    return f"{state.grid}: {', '.join(filter(None, parts))}"  # of the time left nothing may be known


def draw(state: SweepState) -> RenderableType:
    """The live display of one moment."""
    head = Table.grid(padding=(0, 2))
    left = time_left(state.seconds_left, at_least=not state.estimate.complete)
    head.add_row(
        Text(state.grid, style="bold"),
        ProgressBar(total=max(state.cells, 1), completed=state.cells_done, width=32),
        f"{state.cells_done:,}/{state.cells:,} cells",
        f"{state.units_done:,}/{state.units:,} units",
        duration(state.seconds),
        left,
    )
    lines: list[RenderableType] = [head]
    if state.pool:
        lines.append(Text(f"  {state.pool}", style="dim"))
    workers = Table.grid(padding=(0, 2))
    workers.add_column(no_wrap=True)
    workers.add_column(no_wrap=True, overflow="ellipsis")
    for worker, label in list(state.on().items())[:_SHOWN_WORKERS]:
        workers.add_row(
            Text(f"  {worker}", style="cyan"), Text(label or "idle", style="" if label else "dim")
        )
    if len(state.workers) > _SHOWN_WORKERS:
        workers.add_row("", Text(f"and {len(state.workers) - _SHOWN_WORKERS} more workers", style="dim"))
    lines.append(workers)
    if state.units_failed:
        lines.append(Text(f"  {state.units_failed} failed", style="bold red"))
        lines.extend(
            Text(f"    {failure}", style="red", overflow="ellipsis", no_wrap=True)
            for failure in state.failures
        )
    if state.notes:
        lines.append(Text(f"  {state.notes}", style="yellow"))
    return Group(*lines)
