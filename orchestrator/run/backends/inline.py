"""One worker, in this process: so that a debugger works, and a failure is an ordinary traceback."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import BackendError
from orchestrator.run.backends import Event, Finished, Ready
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.options import RunOptions
from workers.machine import available_cpus
from workers.unit import Unit, WorkerSettings
from workers.worker import Worker


class InlineBackend:
    """See `orchestrator.run.backends.Backend`; what TensorFlow prints while it starts goes to `logs`."""

    def __init__(
        self, options: RunOptions, settings: WorkerSettings, *, most: int, logs: Path | None
    ) -> None:
        self._worker = Worker(replace(settings, cpus=options.cpus_per_worker or available_cpus()))
        self._log = logs / "inline.log" if logs else None
        self._unit: Unit | None = None
        self._announced = False

    def start(self) -> None:
        """Nothing to bring up: the runner is made at the first `wait`, once the display is there."""

    def submit(self, worker: str, unit: Unit) -> None:
        self._unit = unit

    def demand(self, useful: int, startable: int) -> None:
        """One worker, whatever there is to do."""

    def wait(self, timeout: float) -> list[Event]:
        """Runs the unit that was submitted, however long it takes."""
        if not self._announced:
            self._announced = True
            return [Ready("inline", self._host())]
        if self._unit is None:
            return []
        unit, self._unit = self._unit, None
        return [Finished("inline", self._worker.run(unit))]

    def kill(self, worker: str) -> None:
        raise NotImplementedError("a unit in this process cannot be ended from outside")

    def stop(self) -> None:
        self._unit = None

    def _host(self) -> str:
        try:
            with stderr_to(self._log) if self._log else nullcontext():
                return self._worker.ready().host
        except Exception as error:
            raise BackendError(f"the worker does not start: {type(error).__name__}: {error}") from error
