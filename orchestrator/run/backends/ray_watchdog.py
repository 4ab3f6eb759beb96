"""Ends a process that waits for a Ray that is dead, before Ray does so without a word."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from orchestrator.errors import ClusterLostError

# Ray ends a process 60 s after the head that it asks has died. Whoever can act has done so long before: only
# a call that went out at that very moment waits on, and nothing in Python ends that.
PATIENCE_SECONDS = 50.0
_LOOK_SECONDS = 2.0


class Watchdog:
    """Watches, in a thread of its own, until it is told to `stop`. `dead` says why Ray is, or nothing."""

    def __init__(self, dead: Callable[[], str]) -> None:
        self._dead = dead
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ray-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        since: float | None = None
        while not self._stopped.wait(_LOOK_SECONDS):
            why = self._dead()
            now = time.monotonic()
            since = (now if since is None else since) if why else None
            if since is not None and now - since >= PATIENCE_SECONDS:
                _end_this_process(why)


def _end_this_process(why: str) -> None:
    sys.stderr.write(
        f"\nerror: Ray died while it was asked for something ({why}); the same command goes on from here\n"
    )
    sys.stderr.flush()
    os._exit(ClusterLostError.exit_code)
