"""Output folders as a page shows them: read again when something has been added, never changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator import rereading
from orchestrator.errors import QueryError, StoreError, UserError
from orchestrator.report.facts import gather
from orchestrator.report.page import Content, content
from orchestrator.results.query import Answer, answering
from orchestrator.results.schemas import Results
from orchestrator.results.text.base import Columns, finite, plain
from orchestrator.run.progress import duration, time_left
from orchestrator.run.status import SILENT_SECONDS, life
from orchestrator.store.folder import Store
from orchestrator.store.locate import read_results
from orchestrator.store.records import Status
from workers.storage import redacted

LOOK_SECONDS = 2.0
"""How often a folder is looked at for something new, at the most."""

SHARE = 0.25
"""How much of the time, at the most, goes into making a page again: a sweep needs the machine more."""

ROWS, BYTES, SECONDS, MEMORY = 1000, 2_000_000, 30.0, "1GB"
"""The most that an answer to a query has, how long it may take, and in how much memory."""

_RUNS = 5


class _Heard(NamedTuple):
    """What a run last said."""

    sequence: int
    at: float  # when it was first seen, by this process's clock
    goes_on: bool  # there was another before it


@dataclass
class Watched:
    """What some folders hold, from a thread that looks for more."""

    stores: Mapping[str, Store]
    version: int = 0
    problem: str = ""  # why the page could not be made anew; what is shown is what was read before
    content: Content = field(default_factory=lambda: Content("", "{}"))
    _results: Sequence[Results] = ()
    _seen: Any = None
    _sequences: dict[str, _Heard] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    asking: threading.Lock = field(default_factory=threading.Lock)  # held while a question is answered
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Read what is there now (UserError where that cannot be), and go on looking."""
        self._seen = self._signs()
        self._read()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, and a query that runs."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        with self.asking:
            pass

    def _loop(self) -> None:
        wait = LOOK_SECONDS
        while not self._stop.wait(wait):
            begun = time.monotonic()
            try:
                signs = self._signs()
                if signs != self._seen:
                    self._read()
                    self._seen = signs
                self.problem = ""
            except (UserError, OSError) as error:  # a folder that is moved, a share that is away
                self.problem = redacted(str(error))
            wait = max(LOOK_SECONDS, (time.monotonic() - begun) / SHARE)

    def _signs(self) -> Any:
        """What changes when there is something new: names and sizes of files, no contents."""
        found = []
        for store in self.stores.values():
            if not (runs := store.run_ids()):
                raise StoreError(f"{store.shown} is not there any more")
            shards = [(file.path, file.size) for file in store.shards.files(recursive=True)]
            others = (
                (file.path, file.size, file.mtime_ns)
                for name in ("pins", "failures", "probes")
                for file in store.folder.files(name, recursive=True)
            )
            found.append((sorted(shards), sorted(others), runs))
        return found

    def _read(self) -> None:
        def read() -> tuple[Sequence[Results], Content]:
            results, warnings = read_results(self.stores)
            return results, content(gather(self.stores, results, warnings))

        self._results, self.content = rereading.again(read)()
        self.version += 1

    def status(self) -> dict[str, Any]:
        """What goes on now, as runs say."""
        runs = [
            {"sweep": sweep, **self._run(status)}
            for sweep, store in self.stores.items()
            for status in _latest(store, self._life)
        ]
        return {"version": self.version, "problem": self.problem, "runs": runs}

    def _run(self, status: Status) -> dict[str, Any]:
        answer = self._life(status)
        return {
            "run": status.run_id,
            "grid": status.grid,
            "host": status.host,
            "state": status.state if answer == "ended" else {"live": "running"}.get(answer, answer),
            "note": "; ".join(filter(None, (status.pool, status.note))),
            "cells": status.cells,
            "cells_done": status.cells_done,
            "units": status.units,
            "units_done": status.units_done,
            "units_failed": status.units_failed,
            "took": duration(status.seconds),
            "left": time_left(status.seconds_left, at_least=status.at_least) if answer == "live" else "",
            "workers": status.workers if answer == "live" else {},
            "failures": status.failures,
            "updated": status.updated_at,
        }

    def _life(self, status: Status) -> str:
        """Whether a run lives: where one look cannot tell, whether its sequence number goes on."""
        answer, now = life(status), time.monotonic()
        known = self._sequences.get(status.run_id)
        if known is None or known.sequence != status.sequence:
            known = _Heard(status.sequence, now, goes_on=known is not None)
            self._sequences[status.run_id] = known
        if answer != "unknown":
            return answer
        if now - known.at > SILENT_SECONDS:
            return "dead"
        return "live" if known.goes_on else "unknown"

    def ask(self, sql: str) -> dict[str, Any]:
        """The answer to one SELECT, as much of it as a page takes; UserError for anything else. Who asks
        holds `asking`: each question may take what memory a query is allowed."""
        outdated = False

        def asked() -> dict[str, Any]:
            nonlocal outdated
            if outdated:  # files have been merged and removed since
                self._results, _ = read_results(self.stores)
            outdated = True
            for one in self._results:
                rereading.note(one)
            with answering(
                self._results, sql, memory_limit=MEMORY, seconds=SECONDS, ended=self._stop
            ) as answer:
                return _first_rows(answer)

        return rereading.again(asked)()


def _first_rows(answer: Answer) -> dict[str, Any]:
    """As JSON has them, and whether there are more."""
    names: list[str] = list(Columns.of(answer.schema.empty_table()).names)
    rows: list[list[Any]] = []
    size = 0
    for batch in answer.batches:
        part = batch.slice(0, ROWS + 1 - len(rows))
        size += part.nbytes
        if size > BYTES:
            raise QueryError(
                f"the first {len(rows) + part.num_rows:,} rows are larger than {BYTES / 1e6:.0f} MB: name "
                "fewer columns, or ask robustsweep query"
            )
        values = (column.to_pylist() for column in part.columns)
        rows += ([finite(plain(value)) for value in row] for row in zip(*values, strict=True))
        if len(rows) > ROWS:
            break
    return {"columns": names, "rows": rows[:ROWS], "more": len(rows) > ROWS}


def _latest(store: Store, alive: Callable[[Status], str]) -> list[Status]:
    """The status of the latest run, and of others that live."""
    found = [status for run_id in store.run_ids()[-_RUNS:] if (status := store.read_status(run_id))]
    return [status for i, status in enumerate(found) if i == len(found) - 1 or alive(status) == "live"]
