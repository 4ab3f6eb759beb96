"""What happens in a run, as lines of JSON in its folder, for whoever watches from outside.

`docs/watching.md` says what each event has. Nothing hangs on them: what cannot be written is left out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from orchestrator.store.folder import Store
from workers import layout
from workers.storage import redacted
from workers.unit import Training, Transfer, Unit

FAR_SECONDS = 15.0  # on an object store, between two writings of the part that is being filled
PART_BYTES = 2**20  # a part that has so many is not written again
_KEPT_BYTES = 4 * PART_BYTES  # that could not be written yet; what comes beyond is lost


def said_of(unit: Unit) -> dict[str, str]:
    """A unit, as events have it."""
    if isinstance(unit, Training):
        kind = "training"
    else:
        kind = "transfer" if isinstance(unit, Transfer) else unit.attack.kind
    return {"unit": unit.unit_id, "kind": kind, "label": unit.label}


class EventLog:
    """Locally each line is appended as it comes. An object store has files that are whole or not at all, so
    the lines of a part are written anew now and then, by whoever calls `flush`, until it is full: what that
    costs grows with time and never with the square of it."""

    def __init__(self, store: Store, run_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = store.folder
        self._run_id = run_id
        self._clock = clock
        self._count = 0
        self._lost = 0
        self._file: TextIO | None = None
        self._lines: list[str] = []  # of the part that is being filled
        self._bytes = 0
        self._part, self._written, self._next = 1, 0, clock() + FAR_SECONDS
        self._lock = threading.Lock()

    def note(self, event: str, **fields: Any) -> None:
        """Something has happened, now."""
        with self._lock:
            self._count += 1
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"at": at, "n": self._count, "event": event, **fields}, default=str)
            line = f"{redacted(line)}\n"
            if self._folder.is_local:
                self._append(line)
            elif self._bytes > _KEPT_BYTES:
                self._lost += 1
            else:
                self._lines.append(line)
                self._bytes += len(line.encode())

    def flush(self, *, last: bool = False) -> None:
        """Write what is new to an object store, if it is time to, or for the last time."""
        if self._folder.is_local or (self._clock() < self._next and not last):
            return
        with self._lock:
            lines, part = self._lines.copy(), self._part
            self._next = self._clock() + FAR_SECONDS
        if len(lines) == self._written:
            return
        with suppress(OSError):
            self._folder.publish(layout.run_events(self._run_id, part), "".join(lines).encode())
            with self._lock:
                self._written = len(lines)
                if sum(len(line.encode()) for line in lines) >= PART_BYTES:
                    self._lines = self._lines[len(lines) :]
                    self._bytes = sum(len(line.encode()) for line in self._lines)
                    self._part, self._written = part + 1, 0
            lost, self._lost = self._lost, 0
            if lost:
                self.note("lines_lost", count=lost)

    def close(self) -> None:
        """There is nothing more to come."""
        self.flush(last=True)
        if self._file:
            with suppress(OSError):
                self._file.close()

    def _append(self, line: str) -> None:
        with suppress(OSError):  # a full disk: the shards will say so
            if self._file is None:
                path = Path(self._folder.join(layout.run_events(self._run_id)))
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8")
            self._file.write(line)
            self._file.flush()
