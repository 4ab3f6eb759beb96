"""An output folder: what counts in it, what it remembers, and that nothing found in it breaks it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from orchestrator.errors import StoreError
from orchestrator.grid.load import load_grid
from orchestrator.run.prepare import prepare
from orchestrator.run.sweep import beside
from orchestrator.store.folder import Store, writable_or_raise
from tests.support.sweeps import rows, sweep, times_counted, write_grid
from workers.storage import Folder


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "moods.yaml")


@pytest.fixture
def output(grid: Path, tmp_path: Path) -> Path:
    output = tmp_path / "out"
    assert sweep(grid, output).exit_code == 0
    return output


def shard_files(output: Path) -> list[Path]:
    return sorted((output / "shards").rglob("*.parquet"))


def test_only_what_a_sweep_wrote_to_is_an_output_folder(tmp_path: Path, output: Path) -> None:
    assert Store.existing(str(output)).run_ids()
    with pytest.raises(StoreError, match="no such output folder"):
        Store.existing(str(tmp_path / "nothing"))
    with pytest.raises(StoreError, match="no sweep has run into it"):
        Store.existing(str(tmp_path))
    with pytest.raises(StoreError, match="cannot open nonsense://x"):
        Store.existing("nonsense://x")


def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write to .*(Not a directory|File exists)"):
        writable_or_raise(Store(str(tmp_path / "file" / "out")))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_by_foreign(file: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), file)


@pytest.mark.parametrize("damage", [truncate, empty, replace_by_foreign], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("indexed", [True, False])
def test_a_broken_shard_is_set_aside_and_its_work_redone(grid, output, damage, indexed) -> None:  # type: ignore[no-untyped-def]
    before = rows(output)
    if not indexed:
        shutil.rmtree(output / "index")
    broken = shard_files(output)[0]
    damage(broken)
    accepted = Store(str(output)).accepted_shards()
    assert [one.name for one in accepted.set_aside] == [f"{broken.parent.name}/{broken.name}"]
    assert len(rows(output)) == len(before) - 100
    [warning] = prepare(load_grid(str(grid)), str(output)).warnings
    assert warning.startswith(f"set aside shards/{broken.parent.name}/{broken.name}: ")
    summary = sweep(grid, output)
    assert (summary.exit_code, summary.state.units_done) == (0, 2)  # the victim's weights, and one unit
    assert rows(output).equals(before)
    assert broken.exists()  # set aside, never deleted


def test_strangers_among_the_shards_are_named_and_change_nothing(grid: Path, output: Path) -> None:
    before = rows(output)
    shards = shard_files(output)
    (output / "shards" / "notes.txt").write_text("mine")
    (shards[0].parent / f".{'0' * 32}.tmp").write_bytes(b"half a shard, of a killed worker")
    (output / "shards" / "other-victim").mkdir()
    shutil.copy(shards[0], output / "shards" / "other-victim")
    shutil.copy(shards[0], shards[0].parent / "a copy.parquet")
    accepted = Store(str(output)).accepted_shards()
    [notes, elsewhere] = accepted.set_aside
    assert notes.name == "notes.txt"
    assert notes.reason.startswith("not a readable Parquet file")
    assert elsewhere.name == f"other-victim/{shards[0].name}"
    assert elsewhere.reason == f"it belongs to victim {shards[0].parent.name}, not to this folder"
    assert rows(output).equals(before)
    assert sweep(grid, output).state.units == 0


def test_shards_of_other_weights_are_never_mixed(grid: Path, output: Path) -> None:
    before = rows(output)
    [pin] = (output / "pins").iterdir()
    victim_id, weights, _ = pin.name.split(".")
    smaller = "0" * 64
    pin.with_name(f"{victim_id}.{smaller}.json").write_text(pin.read_text())
    store = Store(str(output))
    assert store.pins()[victim_id].weights == smaller
    accepted = store.accepted_shards()
    assert (accepted.coverage, len(accepted.set_aside)) == ({}, 2)
    assert accepted.dataset().count_rows() == 0
    [warning] = accepted.warnings()
    assert f"its victim had weights {weights[:12]}…, this folder is pinned to {smaller[:12]}…" in warning
    (output / "pins" / f"{victim_id}.{smaller}.json").unlink()
    assert rows(output).equals(before)


def test_the_index_spares_footers_and_can_be_deleted(output: Path) -> None:
    store = Store(str(output))
    assert store.accepted_shards().from_footers == 0
    shutil.rmtree(output / "index")
    accepted = store.accepted_shards()
    assert accepted.from_footers == 2
    store.remember(accepted)
    assert store.accepted_shards().from_footers == 0
    assert len(list((output / "index").iterdir())) == 1


def test_a_broken_file_does_not_have_the_index_written_every_time(output: Path) -> None:
    (output / "shards" / "broken.parquet").touch()
    [segment] = (output / "index").iterdir()
    store = Store(str(output))
    store.remember(store.accepted_shards())
    assert list((output / "index").iterdir()) == [segment]


@pytest.mark.parametrize("damage", [truncate, empty, replace_by_foreign], ids=lambda damage: damage.__name__)
def test_a_broken_index_is_read_around(output: Path, damage) -> None:  # type: ignore[no-untyped-def]
    before = rows(output)
    [segment] = (output / "index").iterdir()
    damage(segment)
    assert Store(str(output)).accepted_shards().from_footers == 2
    assert rows(output).equals(before)


def test_a_shard_replaced_behind_the_indexs_back_is_read_again(output: Path) -> None:
    first, second = shard_files(output)
    shutil.copy(second, first)
    accepted = Store(str(output)).accepted_shards()
    assert accepted.from_footers == 1
    assert {(info.start, info.stop) for info in accepted.infos} == {(50, 100)}


def test_what_a_run_was_asked_for_is_written_down(grid: Path, output: Path) -> None:
    store = Store(str(output))
    [run_id] = store.run_ids()
    record = json.loads((output / "runs" / run_id / "run.json").read_text())
    assert {"git_commit", "git_dirty", "packages", "driver_host", "started_at", "command"} <= record.keys()
    text = (output / "grid.yaml").read_text()
    assert load_grid(str(output / "grid.yaml")).attacks[0].name == "work"
    assert text == (output / "runs" / run_id / "grid.yaml").read_text()
    wanted = store.wanted()
    assert (len(wanted), set(wanted["examples"].to_pylist())) == (2, {100})
    footer = pq.read_schema(shard_files(output)[0]).metadata[b"robustsweep"]
    assert json.loads(footer)["provenance"]["git_commit"] == record["git_commit"]


def test_garbled_records_are_passed_over(grid: Path, output: Path) -> None:
    for place in ("failures/x/one.json", f"runs/{Store(str(output)).run_ids()[0]}/run.json"):
        (output / place).parent.mkdir(parents=True, exist_ok=True)
        (output / place).write_text("{")
    (output / "failures" / "x" / "two.json").write_text("[1]")
    assert Store(str(output)).failures() == []
    assert sweep(grid, output).exit_code == 0


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    """An object store at bucket://, which keeps what is put there."""
    stored = fs._MockFileSystem()
    here = Folder.at

    def at(location: str | Path) -> Folder:
        scheme, _, path = str(location).partition("://")
        return Folder(stored, path.rstrip("/")) if scheme == "bucket" else here(location)

    monkeypatch.setattr(Folder, "at", at)
    return stored


def test_a_sweep_into_an_object_store(
    grid: Path, bucket: fs.FileSystem, tmp_path: Path, output: Path
) -> None:
    location = "bucket://somewhere/out/"
    assert sweep(grid, location).exit_code == 0
    assert rows(location).equals(rows(output))
    assert times_counted(rows(location)) == {1: 200}
    names = {info.path for info in bucket.get_file_info(fs.FileSelector("somewhere", recursive=True))}
    assert "somewhere/out/tables/cells.parquet" in names
    assert sweep(grid, location).state.units == 0
    raised = sweep(grid, location, ["examples=150"])
    assert (raised.exit_code, raised.state.units_done) == (0, 2)
    assert times_counted(rows(location)) == {1: 300}
    results = Store.existing(location).results()
    assert (len(results.victims), results.examples.count_rows()) == (1, 300)


def test_a_sweep_into_a_subtree(grid: Path, tmp_path: Path, output: Path) -> None:
    subtree = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "out")
    store = Store(str(output))
    through = Store("elsewhere")
    through.folder, through.shards = subtree, subtree.folder("shards")
    assert through.run_ids() == store.run_ids()
    assert through.accepted_shards().coverage == store.accepted_shards().coverage


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a/b/out", "/a/b/victims"),
        ("/out", "/victims"),
        ("s3://bucket/out/", "s3://bucket/victims"),
        ("s3://bucket", "s3://bucket/victims"),  # a bucket of that name is somebody else's
        ("s3://bucket/?region=eu", "s3://bucket/victims?region=eu"),
        ("file:///out", "file:///victims"),
        ("s3://bucket/x/out?region=eu", "s3://bucket/x/victims?region=eu"),
    ],
)
def test_victims_are_kept_beside_the_output(location: str, expected: str) -> None:
    assert beside(location, "victims") == expected
