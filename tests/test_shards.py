"""The shard: whole, self-describing, and never mistaken for one."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from orchestrator.store.accepted import Accepted
from tests.support.runners import made_up_rows
from tests.support.victims import attack_spec, some_victim
from workers.shards import (
    FOOTER_KEY,
    SCHEMA,
    InvalidShardError,
    ShardInfo,
    publish_shard,
    read_footer,
)
from workers.storage import Folder
from workers.unit import Evaluation

VICTIM, ATTACK = some_victim("net-digits-s0-0123456789"), attack_spec()
UNIT = Evaluation("u", VICTIM, ATTACK, (("cell-0", 0.0), ("cell-1", 0.1)), 10, 30, 2)
WEIGHTS = "a" * 64
NEWER = ("flags", "nearest", "target", "member", "clean_wrong_draws", "wrong_draws", "clean_image")
"""The columns that the first schema lacks."""


def publish(folder: Folder, unit: Evaluation = UNIT, rows: pa.Table | None = None) -> str:
    return publish_shard(
        folder,
        unit,
        made_up_rows(unit) if rows is None else rows,
        weights=WEIGHTS,
        phases={"load": 1.0, "attack": 0.5},
        provenance={"device": "a processor", "git_commit": "c0ffee"},
    )


def footer_of(folder: Folder, name: str) -> ShardInfo:
    return read_footer(folder, name, size=len(folder.read(name)), mtime_ns=7)


@pytest.fixture
def folder() -> Folder:
    return Folder(fs._MockFileSystem(), "bucket/shards")


def test_a_shard_says_what_it_holds(folder: Folder) -> None:
    name = publish(folder)
    assert name.startswith("net-digits-s0-0123456789/fgsm-linf-0123456789.10-30.")
    info = footer_of(folder, name)
    assert (info.victim_id, info.attack_id) == (VICTIM.victim_id, ATTACK.attack_id)
    assert (info.start, info.stop, info.cells) == (10, 30, ("cell-0", "cell-1"))
    assert (info.weights, info.seconds, info.device) == (WEIGHTS, 1.5, "a processor")
    table = pq.read_table(pa.BufferReader(folder.read(name)))
    assert table.replace_schema_metadata(None).equals(made_up_rows(UNIT))
    footer = json.loads(table.schema.metadata[FOOTER_KEY])
    assert footer["provenance"]["git_commit"] == "c0ffee"
    assert footer["phases"] == {"load": 1.0, "attack": 0.5}
    assert footer["victim"]["model"] == {"name": "net"}
    assert footer["attack"] == {
        "attack_id": ATTACK.attack_id,
        "name": "fgsm",
        "norm": "linf",
        "adaptive": True,
        "seed": 0,
    }


def test_a_name_is_never_used_twice(folder: Folder) -> None:
    assert len({publish(folder) for _ in range(3)}) == 3


def test_rows_that_are_not_the_units_are_refused(folder: Folder) -> None:
    rows = made_up_rows(UNIT)
    with pytest.raises(ValueError, match="39 rows, expected 40"):
        publish(folder, rows=rows.slice(1))
    with pytest.raises(ValueError, match="not the shard schema"):
        publish(folder, rows=rows.drop_columns("image"))
    assert folder.files(recursive=True) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "the file is empty"),
        (lambda data: data[: len(data) // 2], "not a readable Parquet file"),
        (lambda data: data[:-1], "not a readable Parquet file"),
        (lambda data: b"no Parquet at all", "not a readable Parquet file"),
        (lambda data: data.replace(b"cell_id", b"\xe1ell_id"), "not a readable Parquet file: .*utf-8"),
    ],
)
def test_damage_is_seen(folder: Folder, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    name = publish(folder)
    folder.publish(name, damage(folder.read(name)))
    with pytest.raises(InvalidShardError, match=reason):
        footer_of(folder, name)


def rewritten(folder: Folder, without: Sequence[str] = (), **changes: object) -> str:
    """A shard whose footer has been tampered with; a change to None leaves the key out."""
    name = publish(folder)
    table = pq.read_table(pa.BufferReader(folder.read(name)))
    table = table.drop_columns(list(without))
    footer = json.loads(table.schema.metadata[FOOTER_KEY]) | changes
    footer = {key: value for key, value in footer.items() if value is not None}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({FOOTER_KEY: json.dumps(footer).encode()}), sink)
    folder.publish(name, sink.getvalue())
    return name


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 99}, "schema version 99, this robustsweep reads 1 to 4"),
        ({"schema_version": 0}, "schema version 0, this robustsweep reads 1 to 4"),
        ({"schema_version": 1}, "columns are not those of a shard"),
        ({"cells": None}, "lacks or garbles 'cells'"),
        ({"provenance": []}, "lacks or garbles"),
        ({"start": "ten"}, "lacks or garbles"),
        ({"stop": 31}, "40 rows, but its footer promises 21 × 2"),
        ({"start": 30, "stop": 10}, r"promises \[30, 10\)"),
        ({"cells": []}, r"of cells \(\)"),
        ({"cells": ["cell-0", "cell-0"]}, "of cells"),
        ({"victim_id": "other"}, "belongs to victim other"),
    ],
)
def test_a_footer_that_disagrees_is_refused(folder: Folder, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidShardError, match=reason):
        footer_of(folder, rewritten(folder, **changes))


def test_a_shard_from_before_a_column_was_added_still_counts(folder: Folder) -> None:
    name = rewritten(folder, without=NEWER, schema_version=1)
    info = footer_of(folder, name)
    part = {"cell-0": [(12, 15)]}
    whole, cut = Accepted(folder, _whole=[info]), Accepted(folder, _parts=[(info, part)])
    for accepted, expected in ((whole, 40), (cut, 3)):
        rows = accepted.dataset().to_table()
        assert rows.num_rows == expected == rows["flags"].null_count
        assert rows.schema.equals(SCHEMA)
    with pytest.raises(InvalidShardError, match="columns are not those of a shard"):
        footer_of(folder, rewritten(folder, without=NEWER))


def test_foreign_parquet_and_other_columns_are_refused(folder: Folder) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    folder.publish("net/x.parquet", sink.getvalue())
    with pytest.raises(InvalidShardError, match="not one that robustsweep wrote"):
        footer_of(folder, "net/x.parquet")
    name = publish(folder)
    table = pq.read_table(pa.BufferReader(folder.read(name)))
    sink = pa.BufferOutputStream()
    pq.write_table(table.drop_columns("image"), sink)
    folder.publish(name, sink.getvalue())
    with pytest.raises(InvalidShardError, match="columns are not those of a shard"):
        footer_of(folder, name)


MEMORY = Folder(fs._MockFileSystem(), "bucket")
NAME = publish(MEMORY)
WHOLE = MEMORY.read(NAME)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_any_damage_to_the_end_is_an_invalid_shard_or_none(data: st.DataObject) -> None:
    """Whatever happens to the footer, reading it says what is wrong, and raises nothing else."""
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(max(0, len(WHOLE) - 6000), len(WHOLE) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    MEMORY.publish(NAME, bytes(damaged))
    try:
        info = footer_of(MEMORY, NAME)
    except InvalidShardError as error:
        assert str(error)
    else:
        assert (info.stop - info.start) * len(info.cells) == 40


def test_readers_never_meet_half_a_shard(tmp_path: Path) -> None:
    """Listing and reading while four writers publish: every file seen is whole."""
    shards = Folder.at(tmp_path)
    written = 4 * 15

    def write() -> None:
        for _ in range(15):
            publish(shards)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    seen: set[str] = set()
    while any(writer.is_alive() for writer in writers) or len(seen) < written:
        for file in shards.files(recursive=True):
            name = shards.relative(file.path)
            assert footer_of(shards, name).weights == WEIGHTS
            seen.add(name)
    assert len(seen) == written
    assert SCHEMA.names == pq.read_schema(shards.join(min(seen))).names
