"""Where units run. A backend is a pool of workers behind four calls; the sweep never sees more of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from workers.unit import UnitReport, WorkUnit


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can take units."""

    worker: str
    host: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker is through with its unit, well or not."""

    worker: str
    report: UnitReport


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, and with it the unit that it had, if any."""

    worker: str
    reason: str
    charged: bool  # its process died on a live machine, which the unit may have caused


Event = Ready | Finished | Lost


class Backend(Protocol):
    """A pool that keeps its own size: a lost worker is replaced without being asked."""

    name: str

    def start(self) -> None:
        """Bring up the pool. BackendError when the machine or cluster cannot carry it."""

    def submit(self, worker: str, unit: WorkUnit) -> None:
        """Give a ready worker its one unit."""

    def wait(self, timeout: float) -> list[Event]:
        """What happened, waiting at most about `timeout` seconds for the first of it."""

    def kill(self, worker: str) -> None:
        """End a worker at once and replace it; no `Lost` follows."""

    def stop(self) -> None:
        """End every worker at once and leave nothing behind."""
