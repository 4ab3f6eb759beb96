"""Somebody who looks all along: lists, reads and asks for tables while everything else dies.

`python -m benchmarks.chaos.reader OUTPUT EXPECTED FINDINGS` until its standard input is closed; EXPECTED is a
Parquet file of the rows that a sweep must come to, FINDINGS a JSON file that is written after each look.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import robustsweep
from benchmarks.chaos.sabotage import mutate
from orchestrator.errors import StoreError
from orchestrator.rereading import again
from orchestrator.store.accepted import Accepted
from orchestrator.store.folder import Store
from orchestrator.store.found import read_file
from workers.shards import InvalidShardError

SECONDS = 0.25  # between two looks
VIEWS = 8  # every so many looks also through the views
COMMAND = 60  # and as a command, as a person has it
"""How often."""
IDENTITY = ("victim_id", "attack_id", "position")


@dataclass
class Findings:
    """What a reader has seen; everything but the first four must be nothing, and so empty."""

    looks: int = 0
    files: int = 0
    rows: int = 0
    asked: int = 0  # tables and queries
    partial: int = 0  # files under a shard's name that were not whole, or changed
    doubled: int = 0  # rows that counted more than once
    vanished: Counter[str] = field(default_factory=Counter)  # that counted before, by row: how many looks
    wrong: int = 0  # rows that are not as they must be
    errors: int = 0  # tracebacks and refusals
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if len(self.notes) < 20:
            self.notes.append(text)


class Expected:
    """The rows that a sweep must come to, found by cell and position."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.sort_by([("cell_id", "ascending"), ("position", "ascending")])
        self.cells = {name: place for place, name in enumerate(sorted(set(rows["cell_id"].to_pylist())))}
        self.width = int(np.max(rows["position"].to_numpy())) + 1
        if rows.num_rows != len(self.cells) * self.width:
            raise ValueError("the expected rows have holes")

    def places(self, rows: pa.Table) -> np.ndarray:
        """Where each row stands in `self.rows`; -1 for one that stands nowhere there."""
        names = rows["cell_id"].combine_chunks().dictionary_encode()
        known = np.array([self.cells.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)
        cells = known[names.indices.to_numpy()] if len(rows) else np.zeros(0, np.int64)
        positions = rows["position"].to_numpy()
        inside = (cells >= 0) & (positions < self.width)
        return np.where(inside, cells * self.width + positions, -1)

    def names(self, places: np.ndarray) -> list[str]:
        """Of rows: VICTIM/ATTACK/POSITION, as units are named, which go from a position to another."""
        columns = (self.rows[name].take(pa.array(places)).to_pylist() for name in IDENTITY)
        return ["/".join(map(str, row)) for row in zip(*columns, strict=True)]

    def differing(self, rows: pa.Table) -> int:
        """How many of `rows` are not, bit for bit, as they must be."""
        places = self.places(rows)
        differing = int((places < 0).sum())
        there = pa.array(places >= 0)
        got, due = rows.filter(there), self.rows.take(pa.array(places[places >= 0]))
        if got.equals(due):
            return differing
        return differing + sum(not got.slice(i, 1).equals(due.slice(i, 1)) for i in range(len(got)))


@again
def read_rows(store: Store) -> tuple[Accepted, pa.Table]:
    """What counts, read whole, as every command reads it."""
    accepted = store.accepted_shards()
    return accepted, accepted.dataset().to_table()


class Reader:
    def __init__(self, output: str, expected: Expected) -> None:
        self.output = output
        self.expected = expected
        self.findings = Findings()
        self.known: dict[str, tuple[int, int]] = {}
        self.seen = np.zeros(expected.rows.num_rows, bool)
        self.begun = False

    def look(self) -> None:
        found = self.findings
        found.looks += 1
        try:
            store = Store.existing(self.output)
        except StoreError:
            if self.begun:
                found.errors += 1
                found.note("the folder is none any more")
            return
        self.begun = True
        try:
            self.look_at_files(store)
            self.look_at_rows(store)
            if found.looks % VIEWS == 0:
                self.look_at_views()
            if found.looks % COMMAND == 0:
                self.run_a_command()
        except Exception:
            found.errors += 1
            found.note(traceback.format_exc())

    def look_at_files(self, store: Store) -> None:
        """Every file once, whole; and then that it is as it was."""
        there = set()
        for file in store.shards.files(recursive=True):
            name, version = store.shards.relative(file.path), (file.size, file.mtime_ns or 0)
            there.add(name)
            before = self.known.setdefault(name, version)
            if before != version:
                self.findings.partial += 1
                self.findings.note(f"{name} was {before} and is {version}")
                self.known[name] = version
            elif before is version:  # it is new
                self.findings.files += 1
                try:
                    read_file(store.shards, name, size=version[0], mtime_ns=version[1])
                    pq.read_table(store.shards.join(name), page_checksum_verification=True)
                except (InvalidShardError, OSError, pa.ArrowException) as error:
                    if store.shards.exists(name):
                        self.findings.partial += 1
                        self.findings.note(f"{name}: {error}")
        for name in self.known.keys() - there:  # its rows must be elsewhere, which is looked at next
            del self.known[name]

    def look_at_rows(self, store: Store) -> None:
        accepted, rows = read_rows(store)
        for aside in (*accepted.set_aside, *accepted.unreadable):
            self.findings.partial += 1
            self.findings.note(f"{aside.name}: {aside.reason}")
        self.findings.rows += rows.num_rows
        self.note("wrong", self.expected.differing(rows))
        self.count(rows)

    def count(self, rows: pa.Table) -> None:
        """What counts twice, and what does not count any more."""
        places = self.expected.places(rows)
        counts = np.bincount(places[places >= 0], minlength=len(self.seen))
        self.note("doubled", int((counts[counts > 1] - 1).sum()))
        self.findings.vanished.update(self.expected.names(np.flatnonzero(self.seen & (counts == 0))))
        self.seen |= counts > 0

    def look_at_views(self) -> None:
        """Through the doors that people use."""
        sweep = robustsweep.open(self.output)
        self.count(sweep.sql("SELECT cell_id, position FROM examples").arrow())
        str(sweep.table())
        self.findings.asked += 2

    def run_a_command(self) -> None:
        command = [sys.executable, "-m", "robustsweep", "table", self.output]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        self.findings.asked += 1
        if done.returncode or "Traceback" in done.stderr:
            self.findings.errors += 1
            self.findings.note(done.stderr)

    def note(self, kind: str, count: int) -> None:
        if count:
            setattr(self.findings, kind, getattr(self.findings, kind) + count)
            self.findings.note(f"{count} rows {kind} at look {self.findings.looks}")


def total(findings: list[Findings]) -> Findings:
    """Of several readers."""
    found = Findings()
    for one in findings:
        for name, value in vars(one).items():
            setattr(found, name, getattr(found, name) + value)
    return found


def main() -> None:
    output, expected, findings = sys.argv[1:]
    mutate()
    reader = Reader(output, Expected(pq.read_table(expected)))
    while True:
        closed, _, _ = select.select([sys.stdin], [], [], SECONDS)
        reader.look()
        temporary = Path(f"{findings}.tmp")
        temporary.write_text(json.dumps(vars(reader.findings)))
        os.replace(temporary, findings)
        if closed:
            return


if __name__ == "__main__":
    main()
