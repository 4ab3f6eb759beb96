"""Where units run. A backend is a pool of workers behind six calls; the sweep never sees more of it.

`registry.BACKENDS` names them; `make_backend` imports the one that is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.run.backends.registry import BACKENDS

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.run.options import RunOptions
    from workers.unit import Report, Unit, WorkerSettings


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can take units."""

    worker: str
    host: str
    strong: bool = True  # False: the pool has others that are far faster, on GPUs


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker is through with its unit, well or not."""

    worker: str
    report: Report


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, and with it the unit that it had, if any."""

    worker: str
    reason: str
    charged: bool  # its process died on a live machine, which the unit may have caused


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the pool that a person should know."""

    text: str


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool has changed, or what it waits for."""

    text: str  # "2 of 4 workers on 3 machines (2 joined)"


Event = Ready | Finished | Lost | Notice | Pool


class Backend(Protocol):
    """A pool that keeps its own size: a lost worker is replaced without being asked, and one that there is
    nothing left for is let go."""

    def start(self) -> None:
        """Bring up the pool. BackendError when the machine or cluster cannot carry it."""

    def submit(self, worker: str, unit: Unit) -> None:
        """Give a ready worker its one unit."""

    def demand(self, useful: int, startable: int) -> None:
        """How many workers could still be of use, and how many units could start that nobody is there for."""

    def wait(self, timeout: float) -> list[Event]:
        """What happened, waiting at most about `timeout` seconds for the first of it.

        BackendError when there will never be a worker again, ClusterLostError when that is the cluster's end.
        """

    def kill(self, worker: str) -> None:
        """End a worker at once and replace it; no `Lost` follows."""

    def stop(self) -> None:
        """End every worker at once and leave nothing behind."""


class MakeBackend(Protocol):
    """How a backend is made; every backend's class can be called like this.

    `most` bounds the pool by the work there is; `logs` is a local folder for what workers print, if any.
    """

    def __call__(
        self, options: RunOptions, settings: WorkerSettings, *, most: int, logs: Path | None
    ) -> Backend: ...


def make_backend(options: RunOptions, settings: WorkerSettings, *, most: int, logs: Path | None) -> Backend:
    """The backend that the options ask for, imported only now: Ray takes a while."""
    module, _, name = BACKENDS[options.backend].target.partition(":")
    make: MakeBackend = getattr(importlib.import_module(module), name)
    return make(options, settings, most=most, logs=logs)
