"""Those who watch a run from outside: the log of its events, and what a backend has for metrics."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from orchestrator.run.backends.registry import BACKENDS
from orchestrator.run.events import EventLog, said_of
from orchestrator.run.options import RunOptions
from orchestrator.run.progress import SweepState
from orchestrator.store.folder import Store
from workers.unit import Done, Training, Unit
from workers.version import VERSION


class Metrics(Protocol):
    """Counts what a monitoring system asks for."""

    def note(self, event: str, fields: dict[str, Any]) -> None:
        """Something has happened, as `docs/watching.md` has events."""

    def look(self, state: SweepState, waiting: int) -> None:
        """Where the run stands; `waiting` units have not been begun."""


class Watching:
    """Tells all of them. None may stop a run, whatever happens to it."""

    def __init__(self, store: Store, run_id: str, options: RunOptions, grid: str) -> None:
        self.log = EventLog(store, run_id)
        self._run_id = run_id
        self._target, self._names = BACKENDS[options.backend].metrics, (grid, run_id)
        self._metrics: Metrics | None = None

    def started(self, state: SweepState) -> None:
        """The backend is up, and what the run was asked for is written down."""
        if self._target:
            module, _, name = self._target.partition(":")
            with suppress(Exception):
                self._metrics = getattr(importlib.import_module(module), name)(*self._names)
        self.note(
            "run_started",
            run=self._run_id,
            grid=state.grid,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            cells=state.cells,
            cells_done=state.cells_done,
            units=state.units,
        )

    def finished(self, worker: str, unit: Unit, report: Done, seconds: float, *, copy: bool) -> None:
        """A unit is done, so many seconds after the worker was given it; `copy`: it was done before."""
        phases = _rounded(report.phases)
        said = {"worker": worker, **said_of(unit), "seconds": round(seconds, 3), "phases": phases}
        self.note("unit_finished", **said, rows=report.rows, copy=copy)
        if isinstance(unit, Training) and report.trained:
            victim = unit.victim.victim_id
            self.note("victim_trained", victim=victim, weights=report.weights, seconds=phases.get("train"))

    def failed(self, worker: str, unit: Unit, error: str, *, attempt: int, final: bool) -> None:
        """An attempt at a unit has failed."""
        self.note("unit_failed", worker=worker, **said_of(unit), attempt=attempt, final=final, error=error)

    def ended(self, state: SweepState, waiting: int) -> None:
        """However it came to that; nothing follows."""
        self.look(state, waiting)
        self.note(
            "run_ended",
            run=self._run_id,
            state=state.state,
            note=state.note,
            cells_done=state.cells_done,
            units_done=state.units_done,
            units_failed=state.units_failed,
            seconds=round(state.seconds, 3),
            phases=_rounded(state.phases),
        )
        self.log.close()

    def note(self, event: str, **fields: Any) -> None:
        self.log.note(event, **fields)
        if self._metrics:
            with suppress(Exception):
                self._metrics.note(event, fields)

    def look(self, state: SweepState, waiting: int) -> None:
        if self._metrics:
            with suppress(Exception):
                self._metrics.look(state, waiting)


def _rounded(phases: Mapping[str, float]) -> dict[str, float]:
    """Seconds by phase, to the millisecond."""
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}
