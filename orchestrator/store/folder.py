"""An output folder on any PyArrow filesystem: every write of the orchestrator, and what is there.

`workers.layout` knows the paths; shards and pins are the workers' to write.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator import rereading
from orchestrator.errors import StoreError
from orchestrator.intervals import Interval, add
from orchestrator.results.schemas import (
    FAILURES,
    HISTORY,
    LABELS,
    PROBES,
    STRONGER,
    VICTIMS,
    WANTED,
    Results,
    of_kind,
)
from orchestrator.store.accepted import Accepted, accept_found
from orchestrator.store.foreign import epochs, fitting, impossible
from orchestrator.store.index import ShardIndex
from orchestrator.store.listing import listed
from orchestrator.store.measures import measured_results
from orchestrator.store.records import Failure, Status, from_json
from workers import layout
from workers.datasets.classes import CLASS_NAMES
from workers.pins import Pin, named_pins, pinned_weights, read_pins
from workers.probes import read_probes
from workers.recipe import Recipe, recipe_text
from workers.recorded import as_json
from workers.storage import READERS, Folder, first_line, redacted
from workers.unit import Kind, Training, Unit

_WITNESSES = ("cell_id", "attacked_at", "broken_at")


class Run(NamedTuple):
    """What a run has left behind."""

    run_id: str
    record: Mapping[str, Any]  # how it was started, with what; empty where that is garbled
    status: Status | None  # where it stands, or ended


class Store:
    """An output folder."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.shown = redacted(location)  # for people and records
        try:
            self.folder = Folder.at(location)
        except ValueError as error:
            raise StoreError(str(error)) from None
        self.name = self.folder.path.rpartition("/")[2] or self.shown  # of the sweep, for people
        self.shards = self.folder.folder(layout.SHARDS)
        self.index = ShardIndex(self.folder.folder(layout.INDEX))

    @classmethod
    def existing(cls, location: str) -> Store:
        """Open a folder that a sweep has written to; StoreError when it is not one."""
        store = cls(location)
        if store.run_ids():
            return store
        if not store.folder.exists():
            raise StoreError(f"no such output folder: {store.shown}")
        raise StoreError(f"{store.shown} is not an output folder: no sweep has run into it")

    # -- shards -------------------------------------------------------------------------------------------

    def accepted_shards(self, pins: Mapping[str, Pin] | None = None) -> Accepted:
        """Which files count: the one answer for table, query and plan alike.

        Validates every file by its footer, applies the pinned weights (by default the folder's own), and
        resolves overlap in favour of what was published first. What does not count is listed with its reason.
        """
        found, broken, unreadable, fresh = listed(self.folder, self.index.load())
        pins = named_pins(self.folder) if pins is None else pins
        accepted = accept_found(self.shards, found, broken, pins, unreadable=unreadable, from_footers=fresh)
        rereading.note(accepted)
        return accepted

    def remember(self, accepted: Accepted) -> None:
        """Write what footers said into the index, when enough of them had to be read to be worth a file."""
        if accepted.from_footers:
            self.index.save(accepted.found)

    def pins(self) -> dict[str, Pin]:
        return read_pins(self.folder)

    # -- failures -----------------------------------------------------------------------------------------

    def record_failure(
        self,
        run_id: str,
        unit: Unit,
        *,
        attempt: int,
        final: bool,
        error: str,
        traceback: str,
        worker: str,
    ) -> None:
        evaluation = None if isinstance(unit, Training) else unit
        failure = Failure(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            run_id=run_id,
            unit_id=unit.unit_id,
            unit=unit.label,
            victim_id=unit.victim.victim_id,
            attack_id=evaluation.attack.attack_id if evaluation else None,
            cells=[cell_id for cell_id, _ in evaluation.cells] if evaluation else [],
            start=evaluation.start if evaluation else 0,
            stop=evaluation.stop if evaluation else 0,
            attempt=attempt,
            final=final,
            error=error,
            traceback=traceback,
            worker=worker,
        )
        self._publish_json(layout.new_failure(run_id), asdict(failure))

    def failures(self) -> list[Failure]:
        """Every failed attempt, oldest first. `final` is false for those that a later `--retry-failed`
        run has put behind us."""
        place = {run_id: number for number, run_id in enumerate(self.run_ids())}
        retries = [(run, record) for run in place if (record := self._run(run)).get("retry_failed")]
        files = self.folder.files(layout.FAILURES, recursive=True)
        names = [self.folder.relative(file.path) for file in files]
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda name: from_json(Failure, self._read_json(name)), names)
            failures = [failure for failure in read if failure]
        settled = [
            replace(one, final=False)
            if any(place[run] > place.get(one.run_id, 0) and _retried(record, one) for run, record in retries)
            else one
            for one in failures
        ]
        return sorted(settled, key=lambda one: (one.at, one.unit_id, one.attempt))

    def failed(self) -> tuple[dict[str, list[Interval]], frozenset[str]]:
        """What failed for good: intervals by cell id, and the ids of victims that could not be trained."""
        cells: dict[str, list[Interval]] = {}
        victims = set()
        for failure in self.failures():
            if not failure.final:
                continue
            if failure.attack_id is None:
                victims.add(failure.victim_id)
            for cell_id in failure.cells if failure.start < failure.stop else ():
                cells[cell_id] = add(cells.get(cell_id, []), failure.start, failure.stop)
        return cells, frozenset(victims)

    # -- runs ---------------------------------------------------------------------------------------------

    @contextmanager
    def new_run(self) -> Iterator[str]:
        """The id of a run; its number is given back where nothing has begun by the end (`start_run`).

        `<number>-<time>-<random>`: ids sort by number, which no clock decides.

        A number is claimed by creating a file, which on a local disk only one driver can do; elsewhere two
        that start at the same moment may get the same number, and the random end keeps them apart.
        """
        files = (file.base_name for file in self.folder.files(layout.RUNS, recursive=True))
        claimed = [layout.claimed_number(name) for name in files]
        number = 1 + max([0, *filter(None, claimed), *map(layout.run_number, self.run_ids())])
        while not self.folder.claim(layout.run_claim(number)):
            number += 1
        run_id = f"{number:06d}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        try:
            yield run_id
        finally:
            if not self.folder.exists(layout.run_cells(run_id)):
                self.folder.delete(layout.run_claim(number))

    def start_run(self, run_id: str, *, grid_text: str, wanted: pa.Table, record: Mapping[str, Any]) -> None:
        """Write down what this run was asked for (`results.schemas.WANTED`), before any of it runs."""
        sink = pa.BufferOutputStream()
        pq.write_table(wanted.cast(WANTED), sink, compression="zstd", write_page_checksum=True)
        self._publish_json(layout.run_record(run_id), record)
        for name in (layout.run_grid(run_id), layout.GRID):
            self.folder.publish(name, redacted(grid_text).encode())
        # Last: a run without its cells is not a run, and the one before it stays the latest.
        self.folder.publish(layout.run_cells(run_id), memoryview(sink.getvalue()))

    def run_ids(self) -> list[str]:
        """The runs into this folder, oldest first."""
        names = {self.folder.relative(file.path) for file in self.folder.files(layout.RUNS, recursive=True)}
        candidates = {name.split("/")[1] for name in names if name.count("/") == 2}
        begun = [run_id for run_id in candidates if layout.run_cells(run_id) in names]
        return sorted(begun, key=lambda run_id: (layout.run_number(run_id), run_id))

    def latest_runs(self, count: int) -> list[str]:
        """The latest of the runs into this folder, of those too that have not begun, oldest first.

        One listing, however much each run has left behind.
        """
        names = self.folder.folders(layout.RUNS)
        return sorted(names, key=lambda run_id: (layout.run_number(run_id), run_id))[-count:]

    def _run(self, run_id: str) -> dict[str, Any]:
        return self._read_json(layout.run_record(run_id))

    def runs(self) -> list[Run]:
        """What the runs into this folder have left behind, oldest first."""
        return [Run(run_id, self._run(run_id), self.read_status(run_id)) for run_id in self.run_ids()]

    def grid_text(self) -> str:
        """The grid as last run; an empty text where it cannot be read, or is a link: reports show it, and a
        folder that somebody has sent may have set one on a file that is nobody's business."""
        if self.folder.is_link(layout.GRID):
            return ""
        try:
            return self.folder.read(layout.GRID).decode()
        except (OSError, UnicodeDecodeError):
            return ""

    def write_status(self, status: Status) -> None:
        self._publish_json(layout.run_status(status.run_id), asdict(status))

    def read_status(self, run_id: str) -> Status | None:
        """None when it is missing or not whole."""
        return from_json(Status, self._read_json(layout.run_status(run_id)))

    def log_folder(self, run_id: str) -> Folder:
        return self.folder.folder(layout.run_logs(run_id))

    # -- results ------------------------------------------------------------------------------------------

    def wanted(self) -> pa.Table:
        """The cells of the grid as last run, `results.WANTED`."""
        runs = self.run_ids()
        return self._asked(runs[-1]) if runs else WANTED.empty_table()

    def ever_wanted(self) -> pa.Table:
        """The cells of every run, each as it was last asked for, `results.WANTED`."""
        cells = {cell["cell_id"]: cell for run in self.run_ids() for cell in self._asked(run).to_pylist()}
        return pa.Table.from_pylist(list(cells.values()), schema=WANTED)

    def _asked(self, run_id: str) -> pa.Table:
        data = self.folder.read(layout.run_cells(run_id))
        try:
            wanted = pq.read_table(pa.BufferReader(data), schema=WANTED, page_checksum_verification=True)
            wanted.validate(full=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise self._no_cells(run_id, first_line(error)) from None
        if why := impossible(wanted):
            raise self._no_cells(run_id, why)
        for name in LABELS.names:  # which runs of earlier versions have not written down
            place = wanted.schema.get_field_index(name)
            wanted = wanted.set_column(place, LABELS.field(name), pc.fill_null(wanted[name], ""))
        return wanted

    def _no_cells(self, run_id: str, why: str) -> StoreError:
        return StoreError(
            f"{self.shown}/{layout.run_cells(run_id)}, which says what was asked for, is damaged: {why}; "
            "`run` with the grid writes it anew and computes nothing twice"
        )

    def results(self, accepted: Accepted | None = None, *, sweep: str | None = None) -> Results:
        """Everything that tables, figures and SQL are made from; `sweep` is what to call it.

        StoreError for a folder of attacks on survivors alone: as robust accuracies they would be too high.
        """
        self.ensure_whole()
        accepted = accepted or self.accepted_shards()
        pinned = self.pins()
        pins = [pin.manifest for pin in pinned.values()]
        probed = read_probes(self.folder, {victim_id: pin.weights for victim_id, pin in pinned.items()})
        probes = [
            {"victim_id": each.victim_id, "figure": figure, "value": value}
            for each in probed
            for figure, value in each.figures.items()
        ]
        history = [
            fitting({**epoch, "victim_id": pin["victim_id"]}, HISTORY)
            for pin in pins
            for epoch in epochs(pin)
        ]
        every = self.wanted()
        wanted, transfers, certificates = (of_kind(every, kind) for kind in get_args(Kind))
        attacks = pa.concat_tables([wanted, transfers])
        recipes = dict(zip(wanted["victim_id"].to_pylist(), wanted["recipe"].to_pylist(), strict=True))
        victims = [_victim_row(pin, recipes) for pin in pins]
        return Results(
            sweep=sweep or self.name,
            examples=accepted.dataset(),
            wanted=wanted,
            measured=partial(measured_results, accepted, attacks, self.folder.folder(layout.MEASURED)),
            coverage=accepted.coverage_table(),
            victims=pa.Table.from_pylist(victims, schema=VICTIMS),
            history=pa.Table.from_pylist(history, schema=HISTORY),
            failures=pa.Table.from_pylist([asdict(one) for one in self.failures()], schema=FAILURES),
            probes=pa.Table.from_pylist(probes, schema=PROBES),
            stronger=self._stronger,
            gone=accepted.gone,
            transfers=transfers,
            transferred=accepted.dataset("transfer"),
            certificates=certificates,
            certified=accepted.dataset("certificate"),
        )

    def _stronger(self) -> pa.Table:
        """What the attacks of `strengthened/` broke, `results.schemas.STRONGER`."""
        inside = Store(self.strengthened)
        if not inside.folder.exists():
            return STRONGER.empty_table()
        # By the weights that count here: those of that folder may be of another time.
        accepted, wanted = inside.accepted_shards(self.pins()), inside.ever_wanted()
        with suppress(OSError):  # a reader may have no right to write
            inside.remember(accepted)
        measured = measured_results(accepted, wanted, inside.folder.folder(layout.MEASURED)).cells
        known = {row["cell_id"]: row for row in measured.select(_WITNESSES).to_pylist()}
        rows = [{**cell, **known[cell["cell_id"]]} for cell in wanted.to_pylist() if cell["cell_id"] in known]
        return pa.Table.from_pylist(
            [{name: row[name] for name in STRONGER.names} for row in rows], schema=STRONGER
        )

    # -- attacks on survivors -------------------------------------------------------------------------------

    @property
    def strengthened(self) -> str:
        """Where the folder of attacks on its survivors is."""
        return layout.inside(self.location, layout.STRENGTHENED)

    def begin_strengthening(self) -> Store:
        """The folder of attacks on survivors, its victims pinned as they are here."""
        inside = Store(self.strengthened)
        inside._publish_json(layout.SURVIVORS, {"of": self.shown})
        pinned = pinned_weights(self.folder)
        for victim_id, weights in pinned_weights(inside.folder).items():
            if pinned.get(victim_id, weights) != weights:
                inside.folder.delete(layout.pin(victim_id, weights))
        for victim_id, weights in pinned.items():
            for name in (layout.pin(victim_id, weights), layout.probes(victim_id, weights)):
                if self.folder.exists(name) and not inside.folder.exists(name):
                    inside.folder.publish(name, self.folder.read(name))
        return inside

    def ensure_whole(self) -> None:
        """StoreError for a folder of attacks on survivors alone."""
        if self.folder.exists(layout.SURVIVORS):
            raise StoreError(
                f"{self.shown} holds attacks on survivors alone, of which no table can be made: ask the "
                "folder whose survivors they are (its view strengthened), which verify holds against them"
            )

    def write_tables(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.folder.publish(layout.table(name), data)

    # -- JSON ---------------------------------------------------------------------------------------------

    def _publish_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.folder.publish(name, redacted(json.dumps(value, indent=1, sort_keys=True, default=str)).encode())

    def _read_json(self, name: str) -> dict[str, Any]:
        """A record of ours; an empty one when it is missing or garbled, as a record is never load-bearing."""
        try:
            value = as_json(self.folder.read(name))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def _retried(record: Mapping[str, Any], failure: Failure) -> bool:
    """Whether a `--retry-failed` run tries all of it again: with --only it may be a part, or nothing."""
    only = record.get("only")
    if not isinstance(only, Mapping):
        return True
    victims, cells = only.get("victims"), only.get("cells")
    if failure.attack_id is None:
        return isinstance(victims, list) and failure.victim_id in victims
    return isinstance(cells, list) and all(cell_id in cells for cell_id in failure.cells)


def _victim_row(manifest: Mapping[str, Any], recipes: Mapping[str, str]) -> dict[str, Any]:
    """`recipes` are those of the victims that the grid still has."""
    last = (epochs(manifest) or [{}])[-1]
    row = {name: manifest.get(name, last.get(name)) for name in VICTIMS.names}
    row["recipe"] = recipes.get(manifest["victim_id"], _recipe_text(manifest))
    dataset = manifest.get("dataset")
    data = dataset if isinstance(dataset, Mapping) else {}
    row["data"] = data.get("fingerprint")
    # Pins of earlier versions do not say, but of a known dataset it is known.
    known = CLASS_NAMES.get(name) if isinstance(name := data.get("name"), str) else None
    row["class_names"] = data.get("class_names") or known or None
    for name in ("model", "dataset", "defence"):
        spec = manifest.get(name)
        row[name] = spec.get("name") if isinstance(spec, Mapping) else spec
    return fitting(row, VICTIMS)


def _recipe_text(manifest: Mapping[str, Any]) -> str | None:
    """None where a pin is damaged."""
    model, recipe = manifest.get("model"), manifest.get("recipe")
    if not isinstance(model, Mapping) or not isinstance(recipe, Mapping):
        return None
    try:
        trained = Recipe(**recipe) if recipe else None
    except (TypeError, ValueError, OverflowError):
        return None
    return recipe_text(trained, pretrained=bool(model.get("path") or model.get("weights")))


def writable_or_raise(store: Store) -> None:
    """Fail before any work starts when the folder cannot be written to."""
    name = f"{layout.RUNS}/.probe-{uuid.uuid4().hex}"
    try:
        store.folder.publish(name, b"probe")  # not every server of a protocol takes an empty object
        store.folder.delete(name)
    except OSError as error:
        raise StoreError(f"cannot write to {store.shown}: {error.strerror or error}") from None
