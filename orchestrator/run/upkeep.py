"""What a run does beside its units: the index of shards kept up, and what other runs have done known."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import pyarrow as pa

from orchestrator.intervals import Interval
from orchestrator.run.sharing import Peers
from orchestrator.run.status import between
from orchestrator.store.folder import Store
from orchestrator.store.records import Status

INDEX_SECONDS = 30.0  # at least, between two writings of the index
INDEX_SHARE = 0.02  # of the time, at most, goes into the index
PEER_SHARE = 0.1  # and this much while another run is writing here, whose shards are to be known soon
_PAGE = 1000  # names that an object store lists in one request
_PATIENCE = 5.0  # seconds: storage that does not answer must not keep a run from its end


class Upkeep:
    """A thread of its own: a listing of many shards takes a while, and workers must not wait for it.

    `coverage` is what all runs have published by cell id, as of a moment ago; None while no other run has
    been here. `news` are runs that have come, until somebody takes them.
    """

    def __init__(self, store: Store, run_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.peers = Peers(store, run_id)
        self.coverage: Mapping[str, Sequence[Interval]] | None = None
        self.news: deque[Status] = deque()
        self._store = store
        self._clock = clock
        self._next = clock() + INDEX_SECONDS
        self._shards = 0  # when they were last listed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="upkeep", daemon=True)

    def start(self) -> None:
        self.look()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def look(self) -> None:
        """See who else is writing here."""
        with suppress(OSError):
            self.news.extend(self.peers.look())

    def keep_up(self) -> None:
        """Write what is new into the index, and know what is there; where reading fails, the next time."""
        with suppress(OSError, pa.ArrowException):
            accepted = self._store.accepted_shards()
            self._shards = len(accepted.infos)
            if self.peers.live or self.coverage is not None:
                self.coverage = accepted.coverage
            self._store.remember(accepted)

    def _loop(self) -> None:
        if self.peers.live:  # what they have done since this run was planned is none of its work
            self._keep_up_in_turn()
        while not self._stop.wait(between(self._store)):
            before = len(self.peers.live)
            self.look()
            live = len(self.peers.live)
            if self._clock() < self._next and live == before and not (live and self.coverage is None):
                continue
            self._keep_up_in_turn()

    def _keep_up_in_turn(self) -> None:
        """And say when the next turn is, by what this one took."""
        began = self._clock()
        self.keep_up()
        took = self._clock() - began
        # A request for each page: as many an hour, however many shards there are to be listed.
        pages = 1 if self._store.folder.is_local else 1 + self._shards // _PAGE
        shared = (between(self._store), PEER_SHARE)
        least, share = shared if self.peers.live else (INDEX_SECONDS, INDEX_SHARE)
        self._next = began + max(least * pages, took / share)
