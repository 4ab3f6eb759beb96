"""One worker, in this process: so that a debugger works, and a failure is an ordinary traceback."""

from __future__ import annotations

from orchestrator.backends import Event, Finished, Ready
from workers.actor import Worker
from workers.unit import WorkerSettings, WorkUnit


class InlineBackend:
    name = "inline"

    def __init__(self, settings: WorkerSettings) -> None:
        self._worker = Worker(settings)
        self._unit: WorkUnit | None = None
        self._announced = False

    def start(self) -> None:
        """Nothing to bring up."""

    def submit(self, worker: str, unit: WorkUnit) -> None:
        self._unit = unit

    def wait(self, timeout: float) -> list[Event]:
        """Runs the unit that was submitted, however long it takes."""
        if not self._announced:
            self._announced = True
            return [Ready("inline", self._worker.ready().host)]
        if self._unit is None:
            return []
        unit, self._unit = self._unit, None
        return [Finished("inline", self._worker.run(unit))]

    def kill(self, worker: str) -> None:
        raise NotImplementedError("a unit in this process cannot be ended from outside")

    def stop(self) -> None:
        self._unit = None
