"""Telling a live run from a dead one: `status.json`, rewritten every few seconds with a sequence number."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.store import Store

WRITE_SECONDS = 3.0
SILENT_SECONDS = 20.0  # a run that has written nothing for this long is presumed dead


class StatusWriter:
    """Writes a run's status from a thread of its own, so that a long unit in this process is not silence."""

    def __init__(self, store: Store, run_id: str, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._store = store
        self._run_id = run_id
        self._snapshot = snapshot
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
        while not self._stop.wait(WRITE_SECONDS):
            self.write()

    def write(self) -> None:
        self._sequence += 1
        status = {
            **self._snapshot(),
            "run_id": self._run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "sequence": self._sequence,
            "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # On a full or unreachable disk the shards will say so: a status is not worth a run.
        with suppress(OSError):
            self._store.write_status(self._run_id, status)


Life = Literal["live", "dead", "ended", "unknown"]


def life(status: Mapping[str, Any], *, now: datetime | None = None) -> Life:
    """Whether the run that wrote this status is alive, as far as one look can tell.

    On its own machine its process is asked for; elsewhere silence decides, and "unknown" means that
    silence may as well be clocks that differ: look again and compare `sequence`.
    """
    if status.get("state") != "running":
        return "ended" if status else "unknown"
    if status.get("host") == socket.gethostname() and not _process_exists(int(status.get("pid", 0))):
        return "dead"
    try:
        age = (
            (now or datetime.now(UTC)) - datetime.fromisoformat(str(status.get("updated_at")))
        ).total_seconds()
    except (ValueError, TypeError):
        return "unknown"
    return "live" if abs(age) < SILENT_SECONDS else "unknown"


def settled_life(store: Store, run_id: str, *, wait: Callable[[float], object] = time.sleep) -> Life:
    """Like `life`, but a silent run is watched for a moment: a sequence number that moves is life."""
    before = store.read_status(run_id)
    answer = life(before)
    if answer != "unknown" or not before:
        return answer
    wait(2 * WRITE_SECONDS)
    after = store.read_status(run_id)
    return "live" if after.get("sequence") != before.get("sequence") else "dead"


def live_runs(store: Store, *, last: int = 5) -> list[dict[str, Any]]:
    """The statuses of the latest runs that look alive: somebody else is writing here."""
    statuses = (store.read_status(run_id) for run_id in store.run_ids()[-last:])
    return [status for status in statuses if life(status) == "live"]


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
