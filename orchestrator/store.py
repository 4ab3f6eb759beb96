"""Every path and every write of an output folder, on any PyArrow filesystem.

```
grid.yaml                     the grid as last run
shards/<victim>/<attack>.<start>-<stop>.<uuid>.parquet
pins/<victim>.<sha256>.json   the weights whose shards count
index/<uuid>.parquet          what shard footers say, so that they need not be read again
failures/<run>/<uuid>.json    one record for each attempt that failed
runs/<run>/                   cells.parquet, run.json, grid.yaml, status.json, logs/, training/
tables/                       cells.parquet, robustness.csv, robustness.md
```
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.accepted import Accepted, SetAside, accept
from orchestrator.errors import StoreError
from orchestrator.identity import Cell
from orchestrator.index import ShardIndex
from orchestrator.plan import Interval, add
from orchestrator.results import COVERAGE, FAILURES, HISTORY, VICTIMS, WANTED, Results
from workers.pins import Pin, read_pins
from workers.shards import InvalidShardError, ShardInfo, read_footer, unit_dimensions
from workers.storage import Folder
from workers.unit import WorkUnit

_READERS = 16  # footers and records are read in this many threads: latency, not bandwidth, is what they cost


class Store:
    """An output folder."""

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self.folder = Folder.at(location)
        except ValueError as error:
            raise StoreError(str(error)) from None
        self.shards = self.folder.folder("shards")
        self.index = ShardIndex(self.folder.folder("index"))

    @classmethod
    def existing(cls, location: str) -> Store:
        """Open a folder that a sweep has written to; StoreError when it is not one."""
        store = cls(location)
        if store.run_ids():
            return store
        if not store.folder.exists():
            raise StoreError(f"no such output folder: {location}")
        raise StoreError(f"{location} is not an output folder: no sweep has run into it")

    # -- shards -------------------------------------------------------------------------------------------

    def accepted_shards(self) -> Accepted:
        """Which files count: the one answer for table, query and plan alike.

        Validates every file by its footer, applies the pinned weights, and resolves overlap in favour of
        what was published first. What does not count is listed with its reason.
        """
        known = self.index.load()
        infos: list[ShardInfo] = []
        set_aside: list[SetAside] = []
        unknown: list[tuple[str, int, int]] = []
        for file in self.shards.files(recursive=True):
            name, size, mtime = self.shards.relative(file.path), file.size, file.mtime_ns or 0
            info = known.get(name)
            if info and info.size == size and info.mtime_ns == mtime:
                infos.append(info)
            else:
                unknown.append((name, size, mtime))

        def read(file: tuple[str, int, int]) -> ShardInfo | SetAside:
            name, size, mtime = file
            try:
                return read_footer(self.shards, name, size=size, mtime_ns=mtime)
            except InvalidShardError as error:
                return SetAside(name, str(error))

        with ThreadPoolExecutor(_READERS) as pool:
            for one in pool.map(read, unknown):
                infos.append(one) if isinstance(one, ShardInfo) else set_aside.append(one)
        from_footers = len(unknown) - len(set_aside)
        return accept(self.shards, infos, set_aside, self.pins(), from_footers=from_footers)

    def remember(self, accepted: Accepted) -> None:
        """Write what footers said into the index, when enough of them had to be read to be worth a file."""
        if accepted.from_footers:
            self.index.save([*accepted.infos])

    def pins(self) -> dict[str, Pin]:
        return read_pins(self.folder)

    # -- failures -----------------------------------------------------------------------------------------

    def record_failure(
        self,
        run_id: str,
        unit: WorkUnit,
        *,
        attempt: int,
        final: bool,
        error: str,
        traceback: str,
        worker: str,
    ) -> None:
        record = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": run_id,
            "unit_id": unit.unit_id,
            "unit": unit.label,
            "victim_id": unit.victim.victim_id,
            "attack_id": unit.attack.attack_id if unit.attack else None,
            "cells": [cell_id for cell_id, _ in unit.cells],
            "start": unit.start,
            "stop": unit.stop,
            "attempt": attempt,
            "final": final,
            "error": error,
            "traceback": traceback,
            "worker": worker,
        }
        self._publish_json(f"failures/{run_id}/{uuid.uuid4().hex}.json", record)

    def failures(self) -> list[dict[str, Any]]:
        """Every failed attempt, oldest first. `final` is false for those that a later `--retry-failed`
        run has put behind us."""
        retried = max((run for run in self.run_ids() if self._run(run).get("retry_failed")), default="")
        names = [self.folder.relative(file.path) for file in self.folder.files("failures", recursive=True)]
        with ThreadPoolExecutor(_READERS) as pool:
            records = [
                record for record in pool.map(self._read_json, names) if record.keys() >= set(FAILURES.names)
            ]
        for record in records:
            record["final"] = bool(record["final"]) and str(record["run_id"]) >= retried
        return sorted(records, key=lambda record: (record["at"], record["unit_id"], record["attempt"]))

    def failed(self) -> tuple[dict[str, list[Interval]], frozenset[str]]:
        """What failed for good: intervals by cell id, and the ids of victims that could not be trained."""
        cells: dict[str, list[Interval]] = {}
        victims = set()
        for record in self.failures():
            if not record["final"]:
                continue
            if record["attack_id"] is None:
                victims.add(str(record["victim_id"]))
            for cell_id in record["cells"]:
                cells[cell_id] = add(cells.get(cell_id, []), record["start"], record["stop"])
        return cells, frozenset(victims)

    # -- runs ---------------------------------------------------------------------------------------------

    def new_run_id(self) -> str:
        """Ids sort by time; the random end keeps two drivers apart that start at the same moment."""
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:6]}"

    def start_run(
        self,
        run_id: str,
        *,
        grid_text: str,
        cells: Iterable[Cell],
        examples: Mapping[str, int],
        record: Mapping[str, Any],
    ) -> None:
        """Write down what this run was asked for, before any of it runs."""
        rows: dict[str, list[Any]] = {name: [] for name in WANTED.names}
        for cell in cells:
            unit = WorkUnit("", cell.victim, cell.attack)
            for name, value in unit_dimensions(unit, cell.epsilon, cell.cell_id).items():
                rows[name].append(value)
            rows["examples"].append(examples[cell.victim.dataset["name"]])
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(rows, schema=WANTED), sink, compression="zstd")
        self._publish_json(f"runs/{run_id}/run.json", record)
        self.folder.publish(f"runs/{run_id}/grid.yaml", grid_text.encode())
        self.folder.publish("grid.yaml", grid_text.encode())
        # Last: a run without its cells is not a run, and the one before it stays the latest.
        self.folder.publish(f"runs/{run_id}/cells.parquet", memoryview(sink.getvalue()))

    def run_ids(self) -> list[str]:
        """The runs into this folder, oldest first."""
        names = (self.folder.relative(file.path) for file in self.folder.files("runs", recursive=True))
        return sorted(name.split("/")[1] for name in names if name.endswith("/cells.parquet"))

    def _run(self, run_id: str) -> dict[str, Any]:
        return self._read_json(f"runs/{run_id}/run.json")

    def write_status(self, run_id: str, status: Mapping[str, Any]) -> None:
        self._publish_json(f"runs/{run_id}/status.json", status)

    def read_status(self, run_id: str) -> dict[str, Any]:
        return self._read_json(f"runs/{run_id}/status.json")

    def log_folder(self, run_id: str) -> Folder:
        return self.folder.folder(f"runs/{run_id}/logs")

    # -- results ------------------------------------------------------------------------------------------

    def wanted(self) -> pa.Table:
        """The cells of the grid as last run, `results.WANTED`."""
        runs = self.run_ids()
        if not runs:
            return WANTED.empty_table()
        data = self.folder.read(f"runs/{runs[-1]}/cells.parquet")
        return pq.read_table(pa.BufferReader(data), schema=WANTED)

    def results(self, accepted: Accepted | None = None) -> Results:
        """Everything that tables, figures and SQL are made from."""
        accepted = accepted or self.accepted_shards()
        pins = [pin.manifest for pin in self.pins().values()]
        history = [
            {"victim_id": pin["victim_id"], **epoch} for pin in pins for epoch in pin.get("history", [])
        ]
        return Results(
            examples=accepted.dataset(),
            wanted=self.wanted(),
            coverage=pa.Table.from_pylist(accepted.coverage_rows(), schema=COVERAGE),
            victims=pa.Table.from_pylist([_victim_row(pin) for pin in pins], schema=VICTIMS),
            history=pa.Table.from_pylist(history, schema=HISTORY),
            failures=pa.Table.from_pylist(self.failures(), schema=FAILURES),
        )

    def has_tables(self) -> bool:
        return self.folder.exists("tables/cells.parquet")

    def write_tables(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.folder.publish(f"tables/{name}", data)

    # -- JSON ---------------------------------------------------------------------------------------------

    def _publish_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.folder.publish(name, json.dumps(value, indent=1, sort_keys=True, default=str).encode())

    def _read_json(self, name: str) -> dict[str, Any]:
        """A record of ours; an empty one when it is missing or garbled, as a record is never load-bearing."""
        try:
            value = json.loads(self.folder.read(name))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def _victim_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: manifest.get(name) for name in VICTIMS.names}
    for name in ("model", "dataset", "defence"):
        spec = manifest.get(name)
        row[name] = spec.get("name") if isinstance(spec, Mapping) else spec
    return row


def writable_or_raise(store: Store) -> None:
    """Fail before any work starts when the folder cannot be written to."""
    name = f"runs/.probe-{uuid.uuid4().hex}"
    try:
        store.folder.publish(name, b"")
        store.folder.delete(name)
    except OSError as error:
        raise StoreError(f"cannot write to {store.location}: {error.strerror or error}") from None
