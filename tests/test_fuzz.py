"""Crafted and damaged files are set aside or refused: never a traceback, never a wrong row.

Starts from a valid output folder, changes one file of it, and reads everything that hangs on that file.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from orchestrator import overview, show
from orchestrator.errors import StoreError, UserError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import grid_of_text, load_grid, shipped_grids
from orchestrator.plan.cells import expand
from orchestrator.printable import SafeConsole
from orchestrator.report import sections
from orchestrator.run.progress import duration
from orchestrator.run.status import life
from orchestrator.store.folder import Store
from tests.support.fuzzing import changed, documents, fuzz, mutated, wild
from tests.support.sweeps import sweep, write_grid
from workers import layout
from workers.probes import FIGURES, VERSION, Probes, publish_probes
from workers.shards import FOOTER_KEY
from workers.storage import Folder
from workers.victims.cache import VictimCache

pytestmark = pytest.mark.timeout(3_600)  # with 2,000 examples, on a busy machine


class Files(dict[str, bytes]):
    """An output folder's files, by their names below it; a failing example need not show them."""

    def __repr__(self) -> str:
        return f"{len(self)} files"


class Rows(frozenset[str]):
    """Rows, as text."""

    def __repr__(self) -> str:
        return f"{len(self)} rows"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A finished output folder with failures, in memory."""
    folder = tmp_path_factory.mktemp("fuzz")
    output = folder / "out"
    assert (
        sweep(write_grid(folder / "moods.yaml", ["work", "raise"], examples=8, slice=4), output).exit_code
        == 1
    )
    [pin] = (output / layout.PINS).iterdir()
    victim, weights = layout.pinned_by(pin.name) or ("", "")
    figures = dict.fromkeys(FIGURES, 0.5)
    probes = Probes(victim_id=victim, weights=weights, version=VERSION, figures=figures, seconds=1.0)
    publish_probes(Folder.at(output), probes)
    history = [
        {"epoch": 1, "phase": "scratch", "loss": 0.5, "accuracy": 0.5, "seconds": 1.0},
        {"epoch": 2, "phase": "scratch", "loss": 0.25, "accuracy": 0.75, "seconds": 1.0},
    ]
    pin.write_text(json.dumps({**json.loads(pin.read_text()), "history": history}))
    paths = [path for path in output.rglob("*") if path.is_file()]
    return Files({path.relative_to(output).as_posix(): path.read_bytes() for path in paths})


def below(files: Files, start: str, end: str = "") -> str:
    """The name of the first file there."""
    return min(name for name in files if name.startswith(start) and name.endswith(end))


def store_with(files: Files, changes: Mapping[str, bytes | None]) -> Store:
    """An output folder in memory, with some files changed, added, or left out."""
    folder = Folder(fs._MockFileSystem(), "bucket/out")
    for name, data in {**files, **changes}.items():
        if data is not None:
            folder.publish(name, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "at", staticmethod(lambda location: folder))
        return Store("memory")


def without_caches(files: Files) -> dict[str, None]:
    return {name: None for name in files if name.startswith(("index/", "measured/"))}


def read(store: Store) -> list[str] | None:
    """The rows that count, when all that tables are made of could be made; None where it is refused."""
    try:
        accepted = store.accepted_shards()
        results = store.results(accepted)
        table = results.examples.to_table()
        cells = results.measured().cells
    except StoreError as error:
        assert "memory/" in str(error) or "rows of shards/" in str(error)
        return None
    except (OSError, pa.ArrowException) as error:  # of the rows alone, which who reads them says in one line
        assert getattr(error, "errno", None) is None and str(error)
        return None
    store.remember(accepted)
    assert all(one.reason for one in accepted.set_aside) and len(accepted.warnings()) >= bool(
        accepted.set_aside
    )
    places = list(zip(table["cell_id"].to_pylist(), table["position"].to_pylist(), strict=True))
    assert len(places) == len(set(places)), "a row counts twice"
    coverage = accepted.coverage_table().to_pylist()
    covered = {row["cell_id"]: 0 for row in coverage}
    for row in coverage:
        covered[row["cell_id"]] += row["stop"] - row["start"]
    assert sum(covered.values()) == len(places), "what counts as done is not what is there"
    assert all(
        n <= covered[cell]
        for cell, n in zip(*cells.select(["cell_id", "n"]).to_pydict().values(), strict=True)
    )
    return sorted(map(repr, table.to_pylist()))


@pytest.fixture(scope="module")
def intact(files: Files) -> Rows:
    found = read(store_with(files, {}))
    assert found is not None and len(found) == 16
    return Rows(found)


# -- shards -----------------------------------------------------------------------------------------------


def shard(rows: pa.Table, footer: bytes) -> bytes:
    """A whole Parquet file: nothing but what it says tells it from one of ours."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.replace_schema_metadata({FOOTER_KEY: footer}), sink, compression="zstd")
    return bytes(sink.getvalue())


@fuzz
@given(data=st.data())
def test_crafted_footers_of_shards(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "shards/")
    held = pq.read_table(pa.BufferReader(files[name]))
    footer = json.loads(held.schema.metadata[FOOTER_KEY])
    crafted = shard(held, data.draw(documents(footer)))
    found = read(store_with(files, {**without_caches(files), name: crafted}))
    assert found is not None and intact.issuperset(found)


@fuzz
@given(data=st.data())
def test_crafted_rows_of_shards(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "shards/")
    held = pq.read_table(pa.BufferReader(files[name]))
    rows = data.draw(tables(held))
    found = read(
        store_with(files, {**without_caches(files), name: shard(rows, held.schema.metadata[FOOTER_KEY])})
    )
    assert found is not None and len(found) in (8, 16)
    others = [row for row in found if row not in intact]
    # What is read besides is what the file has, each row in its own place.
    assert not others or set(others) <= set(map(repr, rows.to_pylist()))


@fuzz
@given(data=st.data())
def test_damaged_shards(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "shards/")
    broken = data.draw(changed(files[name]))
    kept = {} if data.draw(st.booleans()) else without_caches(files)
    found = read(store_with(files, {**kept, name: broken}))
    assert found is None or intact.issuperset(found)


# -- what is kept for speed -------------------------------------------------------------------------------


@fuzz
@given(data=st.data())
def test_segments_of_the_index(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "index/")
    found = read(store_with(files, {name: data.draw(segments(files[name]))}))
    assert found is not None and intact.issuperset(found)


@fuzz
@given(data=st.data())
def test_segments_of_what_cells_measured(files: Files, data: st.DataObject) -> None:
    name = below(files, "measured/")
    expected = store_with(files, without_caches(files)).results().measured()
    store = store_with(files, {name: data.draw(st.one_of(changed(files[name]), emptied(files[name])))})
    assert store.results().measured().cells.sort_by("cell_id") == expected.cells.sort_by("cell_id")


@st.composite
def segments(draw: st.DrawFn, data: bytes) -> bytes:
    """Of other bytes, of other columns, or with values that cannot be."""
    if draw(st.booleans()):
        return draw(changed(data))
    return written(draw(tables(pq.read_table(pa.BufferReader(data)))))


@st.composite
def emptied(draw: st.DrawFn, data: bytes) -> bytes:
    """The same with a column of nulls, without one, or with impossible counts."""
    table = pq.read_table(pa.BufferReader(data))
    place = draw(st.integers(0, table.num_columns - 1))
    if draw(st.booleans()):
        return written(table.remove_column(place))
    return written(nulled(table, place))


def written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def nulled(table: pa.Table, place: int) -> pa.Table:
    field = table.schema.field(place)
    return table.set_column(place, field, pa.nulls(table.num_rows, field.type))


@st.composite
def tables(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """Other rows, columns, types or values."""
    rows = table.num_rows
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, table.num_columns - 1))
        if draw(st.booleans()):  # what rows are of, more often than what they say
            place = max(
                0, table.schema.get_field_index(draw(st.sampled_from(("cell_id", "position", "start"))))
            )
        field = table.schema.field(place)
        match draw(st.sampled_from(("drop", "rows", "twice", "null", "value", "cast", "order", "swap"))):
            case "drop" if table.num_columns > 1:
                table = table.remove_column(place)
            case "rows":
                table = table.slice(0, draw(st.integers(0, rows)))
            case "twice":
                table = table.take(
                    pa.array([0, *range(1, table.num_rows - 1), 0][: table.num_rows], pa.int64())
                )
            case "null":
                table = nulled(table, place)
            case "value":
                with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
                    values = table[field.name].to_pylist()
                    if values:
                        values[draw(st.integers(0, len(values) - 1))] = draw(wild)
                    table = table.set_column(place, field, pa.array(values, field.type))
            case "cast":
                with suppress(pa.ArrowException):
                    other = draw(st.sampled_from((pa.string(), pa.int64(), pa.float64(), pa.binary())))
                    table = table.set_column(place, field.name, table[field.name].cast(other))
            case "order":
                table = table.select([*reversed(table.column_names)])
            case "swap":
                table = table.take(pa.array([*reversed(range(table.num_rows))], pa.int64()))
    return table


# -- records ----------------------------------------------------------------------------------------------


@fuzz
@given(data=st.data())
def test_pins(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "pins/")
    store = store_with(files, {name: data.draw(documents(json.loads(files[name])))})
    results = store.results()
    assert results.victims.num_rows == 1 and results.victims["weights"][0].as_py() in name
    assert intact == set(map(repr, results.examples.to_table().to_pylist()))


@fuzz
@given(stem=st.one_of(st.text(max_size=40), st.from_regex(r"\A[.a-z-]{0,9}\.[0-9a-f]{64}\Z")))
def test_names_of_pins(files: Files, intact: Rows, stem: str) -> None:
    """A stranger among the pins, whatever it is called, changes nothing of what is there."""
    name = f"pins/{stem.replace('/', '_').encode('utf-8', 'replace').decode()}.json"
    found = read(store_with(files, {name: b"{}"}))
    assert found is not None and intact == set(found)


@fuzz
@given(data=st.data())
def test_statuses(files: Files, data: st.DataObject) -> None:
    name = below(files, "runs/", "status.json")
    store = store_with(files, {name: data.draw(documents(json.loads(files[name])))})
    [run] = store.runs()
    if run.status is not None:
        assert life(run.status) in ("live", "dead", "ended", "unknown")
        assert duration(run.status.seconds) and duration(run.status.seconds_left)
        shown(show.status, store)
        json.dumps(overview.status_record(store), allow_nan=False)


@fuzz
@given(data=st.data())
def test_failures(files: Files, data: st.DataObject) -> None:
    name = below(files, "failures/")
    store = store_with(files, {name: data.draw(documents(json.loads(files[name])))})
    cells, victims = store.failed()
    assert not victims or None not in victims
    assert all(start < stop for intervals in cells.values() for start, stop in intervals)
    assert 3 <= store.results().failures.num_rows <= 4


@fuzz
@given(data=st.data())
def test_records_of_runs(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "runs/", "run.json")
    valid = {**json.loads(files[name]), "retry_failed": True, "only": {"victims": ["v"], "cells": ["c"]}}
    store = store_with(files, {name: data.draw(documents(valid))})
    assert store.failures()
    for run in store.runs():
        assert all(isinstance(text, str) for text in sections._record(run.record).values())


@fuzz
@given(data=st.data())
def test_cells_that_were_asked_for(files: Files, intact: Rows, data: st.DataObject) -> None:
    name = below(files, "runs/", "cells.parquet")
    crafted = data.draw(segments(files[name]))
    store = store_with(files, {name: crafted})
    if (found := read(store)) is not None:
        assert intact == set(found)
        for cell in store.wanted()["cell_id"].to_pylist():
            assert layout.is_name(cell)


@fuzz
@given(data=st.data())
def test_probes(files: Files, data: st.DataObject) -> None:
    name = below(files, "probes/")
    store = store_with(files, {name: data.draw(documents(json.loads(files[name])))})
    values = store.results().probes["value"].to_pylist()
    assert all(value is None or math.isfinite(value) for value in values)


@fuzz
@given(data=st.data())
def test_manifests_of_the_cache(files: Files, data: st.DataObject) -> None:
    name = below(files, "pins/")
    victim, weights = layout.pinned_by(name.partition("/")[2]) or ("", "")
    folder = Folder(fs._MockFileSystem(), "bucket/cache")
    folder.publish(layout.cached_manifest(victim, weights), data.draw(documents(json.loads(files[name]))))
    folder.publish(layout.cached_weights(victim, weights), WEIGHTS)
    [entry] = VictimCache(folder).entries()
    assert entry.state in ("broken", "whole")
    assert VictimCache(folder).find(victim) == entry.manifest


def hdf5() -> bytes:
    """A file with two arrays, as Keras lays weights out."""
    import h5py

    sink = io.BytesIO()
    with h5py.File(sink, "w") as file:
        file["layers/dense/vars/0"] = np.arange(12, dtype=np.float32).reshape(3, 4)
        file["layers/dense/vars/1"] = np.arange(4, dtype=np.float32)
    return sink.getvalue()


WEIGHTS = hdf5()


def shown(draw: Any, *values: Any) -> str:
    """What a person is shown, in which nothing moves the cursor or does worse."""
    stream = io.StringIO()
    draw(SafeConsole(file=stream, force_terminal=True, width=100), *values)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    return text


# -- grids ------------------------------------------------------------------------------------------------

GRID = {
    "name": "crafted",
    "models": ["small_cnn", {"name": "wide_cnn", "width": 8, "label": "wide"}],
    "datasets": ["digits"],
    "attacks": ["fgsm", {"name": "pgd", "norm": "l2", "steps": 4, "epsilons": [0.5, "8/255"]}, "deepfool"],
    "epsilons": {"linf": [0, 0.1], "l2": {"digits": [0, 1]}},
    "pixel_range": [-1, 1],
    "defences": ["none", {"name": "jpeg", "quality": 75}, ["gaussian_augmentation", "bit_depth"]],
    "train": {"epochs": 1, "weights": None},
    "examples": 100,
    "slice": 50,
    "keep": 2,
    "seeds": [0, 1],
    "exclude": [{"model": "small_cnn", "epsilon": 0.1, "attack": "fgsm"}],
}


def tried(load: Callable[[], Grid]) -> None:
    """A grid, all of whose names are names of files; or one error that says where it is wrong."""
    try:
        grid = load()
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        return
    for victim, attacks in islice(expand(grid), 8):
        assert layout.is_name(victim.victim_id)
        for attack, cells in attacks:
            assert layout.is_name(attack.attack_id) and all(layout.is_name(cell.cell_id) for cell in cells)


def test_the_grid_that_is_changed_is_one() -> None:
    assert len(list(expand(load_grid(GRID)))) == 12


@fuzz
@given(grid=mutated(GRID))
def test_grids_as_mappings(grid: Any) -> None:
    if isinstance(grid, dict):
        tried(lambda: load_grid(grid))


@fuzz
@given(data=st.data())
def test_grids_as_files(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(sorted(shipped_grids().values())))
    if data.draw(st.booleans()):
        crafted = data.draw(changed(text.encode())).decode("utf-8", "replace")
    else:
        lines = text.splitlines()
        lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(YAML)))
        crafted = "\n".join(lines)
    tried(lambda: grid_of_text(crafted, "crafted.yaml"))


YAML = (
    "models: !!python/object/apply:os.system ['true']",
    "name: !!python/name:os.system",
    "seeds: &a [*a]",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b, *b]",
    "epsilons: [0x1F, 0b11, 1_000, .inf, .nan, 1e999, 190:20:30]",
    "name: 0001-01-01T00:00:00+23:59",
    "name: 2001-99-99",
    "name: !!binary '####'",
    "examples: " + "9" * 5_000,
    "<<: {models: [small_cnn]}",
    "? [a, b]\n: c",
    "[" * 100,
    "--- !!set {a, b}",
    'name: "\\ud800"',
    'name: "\\x1b[2J"',
    "attacks: [{name: stored, path: /dev/zero}]",
    'attacks: [{name: stored, path: "a\\0b"}]',
    'models: [{name: x, path: "../a\\0.keras"}]',
    'models: [{name: x, factory: "a..b:c"}]',
    'datasets: [{name: x, path: "nul\\0.npz"}]',
    "%YAML 9.9",
    "\t- tab",
)
