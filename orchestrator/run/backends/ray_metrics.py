"""A run's numbers as Ray's own metrics, which Ray exports to Prometheus where `ray[default]` is installed.

Sent by the driver, which sees all workers. Ray puts `ray_` before each name.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from orchestrator.run.progress import SweepState

LOOK_SECONDS = 2.0
_BOUNDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0]  # seconds
_OUTCOMES = {"unit_finished": "done", "unit_elsewhere": "elsewhere", "unit_failed": "failed"}


class RayMetrics:
    """Metrics of one run of a grid, which are tags of all."""

    def __init__(self, grid: str, run_id: str, *, clock: Callable[[], float] = monotonic) -> None:
        always = {"grid": grid, "run": run_id}

        def make(metric: Any, name: str, text: str, *tags: str, **more: Any) -> Any:
            made = metric(f"robustsweep_{name}", text, tag_keys=(*always, *tags), **more)
            made.set_default_tags(always)
            return made

        self.units = make(Counter, "units", "Attempts at units that have ended", "kind", "outcome")
        self.seconds = make(Counter, "seconds", "Seconds from giving units to their reports", "kind")
        self.phase_seconds = make(
            Counter, "phase_seconds", "Seconds of all workers, by what they did", "phase"
        )
        self.unit_seconds = make(
            Histogram, "unit_seconds", "Seconds from giving a unit to its report", "kind", boundaries=_BOUNDS
        )
        self.workers_lost = make(Counter, "workers_lost", "Workers that ended before they were told to")
        self.workers = make(Gauge, "workers", "Workers that are ready", "state")
        self.queue = make(Gauge, "queue", "Units that have not been begun")
        self.cells = make(Gauge, "cells", "Cells of the grid, or of what was asked for", "state")
        self._clock, self._next = clock, clock()

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """See `orchestrator.run.watching.Metrics`."""
        if outcome := _OUTCOMES.get(event):
            if outcome == "failed" and not fields["final"]:
                outcome = "retry"
            if fields.get("copy"):
                outcome = "copy"
            self.units.inc(1, {"kind": fields["kind"], "outcome": outcome})
        if event == "unit_finished":
            self.seconds.inc(max(fields["seconds"], 1e-9), {"kind": fields["kind"]})
            self.unit_seconds.observe(fields["seconds"], {"kind": fields["kind"]})
            for phase, seconds in fields["phases"].items():
                if seconds > 0:
                    self.phase_seconds.inc(seconds, {"phase": phase})
        if event == "worker_lost":
            self.workers_lost.inc(1)

    def look(self, state: SweepState, waiting: int) -> None:
        """See `orchestrator.run.watching.Metrics`."""
        now = self._clock()
        if now < self._next and state.state == "running":
            return
        self._next = now + LOOK_SECONDS
        busy = sum(bool(label) for label in state.workers.values())
        self.workers.set(busy, {"state": "busy"})
        self.workers.set(len(state.workers) - busy, {"state": "idle"})
        self.queue.set(waiting)
        self.cells.set(state.cells_done, {"state": "done"})
        self.cells.set(state.cells - state.cells_done, {"state": "open"})
