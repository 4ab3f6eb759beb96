"""Telling a live run from a dead one: `status.json`, rewritten every few seconds with a sequence number."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from orchestrator.run.progress import SweepState
from orchestrator.store.folder import Store
from orchestrator.store.records import Status

WRITE_SECONDS = 3.0
FAR_SECONDS = 10.0  # the same on an object store, where each time is a request or two that are paid for
SILENT_SECONDS = 20.0  # a run that has written nothing for this long is presumed dead


def between(store: Store) -> float:
    """Seconds from one writing to the next, or from one look at what others write."""
    return WRITE_SECONDS if store.folder.is_local else FAR_SECONDS


class StatusWriter:
    """Writes a run's status from a thread of its own, so that a long unit in this process is not silence.

    `look` is called before each writing, in that thread.
    """

    def __init__(
        self, store: Store, run_id: str, state: SweepState, look: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._state = state
        self._look = look
        self._sequence = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="status", daemon=True)

    def start(self) -> None:
        self.write()
        self._thread.start()

    def close(self) -> None:
        """End the thread and write the last word."""
        self._stop.set()
        self._thread.join()
        self.write()

    def _loop(self) -> None:
        while not self._stop.wait(between(self._store)):
            self._look()
            self.write()

    def write(self) -> None:
        self._sequence += 1
        # On a full or unreachable disk the shards will say so: a status is not worth a run.
        with suppress(OSError):
            self._store.write_status(self.status())

    def status(self) -> Status:
        """Of this moment. In copies, whole: the run goes on changing what this looks at."""
        state = self._state
        return Status(
            run_id=self._run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            sequence=self._sequence,
            updated_at=datetime.now(UTC).isoformat(timespec="seconds"),
            grid=state.grid,
            state=state.state,
            cells=state.cells,
            cells_done=state.cells_done,
            units=state.units,
            units_done=state.units_done,
            units_failed=state.units_failed,
            seconds=state.seconds,
            ready_after=state.ready_after,
            seconds_left=state.seconds_left,
            at_least=not state.estimate.complete,
            note=state.notes,
            pool=state.pool if state.state == "running" else "",
            workers=state.on(),
            failures=list(state.failures),
            phases=state.phases.copy(),
            used=state.usage.hours(state.seconds),
        )


Life = Literal["live", "dead", "ended", "unknown"]


def life(status: Status, *, now: datetime | None = None) -> Life:
    """Whether the run that wrote this status is alive, as far as one look can tell.

    On its own machine its process is asked for; elsewhere silence decides, and "unknown" means that
    silence may as well be clocks that differ: look again and compare `sequence`.
    """
    if status.state != "running":
        return "ended"
    if status.host == socket.gethostname() and not _process_exists(status.pid):
        return "dead"
    try:
        age = ((now or datetime.now(UTC)) - datetime.fromisoformat(status.updated_at)).total_seconds()
    except (ValueError, TypeError):
        return "unknown"
    return "live" if abs(age) < SILENT_SECONDS else "unknown"


def settled_life(store: Store, status: Status, *, wait: Callable[[float], object] = time.sleep) -> Life:
    """Like `life`, but a silent run is watched for a moment: a sequence number that moves is life."""
    answer = life(status)
    if answer != "unknown":
        return answer
    wait(2 * between(store))
    after = store.read_status(status.run_id)
    return "live" if after and after.sequence != status.sequence else "dead"


def live_runs(store: Store, *, last: int = 5) -> list[Status]:
    """The statuses of the latest runs that look alive: somebody else is writing here."""
    statuses = (store.read_status(run_id) for run_id in store.run_ids()[-last:])
    return [status for status in statuses if status and life(status) == "live"]


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
