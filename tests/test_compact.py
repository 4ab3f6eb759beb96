"""`compact`: to every reader a merged file is the shards that it was made of, at every moment on the way."""

from __future__ import annotations

import base64
import errno
import json
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs
from typer.testing import CliRunner

import robustsweep
from orchestrator.clean import removable_output
from orchestrator.cli import app
from orchestrator.grid.load import load_grid
from orchestrator.rereading import again, once
from orchestrator.results.fence import VIEWS
from orchestrator.results.query import connect
from orchestrator.results.schemas import WANTED, of_kind
from orchestrator.store import listing, locate
from orchestrator.store.compacting import Limits, compact, plan_compaction
from orchestrator.store.folder import Store
from orchestrator.store.index import ShardIndex
from orchestrator.store.measures import measured_results
from orchestrator.store.merged import MERGED_KEY, Merger
from orchestrator.store.rows import Piece, Rows
from orchestrator.view.watch import Watched
from tests.support.runners import made_up_certificates, made_up_rows
from tests.support.sweeps import sweep, times_counted
from tests.support.victims import attack_spec, some_victim
from tests.test_opened import keep_images
from workers.pins import Pin
from workers.shards import FOOTER_KEY, publish_shard
from workers.storage import Folder
from workers.unit import AttackSpec, Evaluation, VictimSpec

VICTIMS = tuple(some_victim(f"net{i}-digits-s0-0123456789", model=f"net{i}") for i in range(2))
ATTACKS = (
    attack_spec("fgsm"),
    attack_spec("bim", steps=3),
    attack_spec("fgsm").against(VICTIMS[1], "v1"),
    attack_spec("certify", norm="l2"),
)
EPSILONS = (0.0, 0.1, 0.2)
NEWER = ("flags", "nearest", "target", "member", "clean_wrong_draws", "wrong_draws", "clean_image")


@dataclass(frozen=True)
class Made:
    """A shard to be published."""

    victim: int = 0
    attack: int = 0
    start: int = 0
    stop: int = 5
    cells: tuple[int, ...] = (0, 1)
    weights: str = "1"
    version: int = 4
    images: bool = False


def cell_id(victim: VictimSpec, attack: AttackSpec, epsilon: int) -> str:
    return f"{victim.victim_id}-{attack.attack_id}-{epsilon}"


def put(shards: Folder, made: Made) -> str:
    """Publish it as a worker does; its name."""
    victim, attack = VICTIMS[made.victim], ATTACKS[made.attack]
    certified = attack.kind == "certificate"
    cells = (0,) if certified else made.cells
    named = tuple((cell_id(victim, attack, i), EPSILONS[i]) for i in sorted(cells))
    unit = Evaluation("u", victim, attack, named, made.start, made.stop)
    rows = made_up_certificates(unit) if certified else made_up_rows(unit)
    if not certified:
        rows = spiced(rows, made)
    name = publish_shard(
        shards,
        unit,
        rows,
        weights=made.weights * 64,
        phases={"attack": 0.1 + made.start, "load": 0.7},
        provenance={"device": f"device {made.start % 3}", "versions": {"keras": f"3.{made.stop}"}},
        source_weights="1" * 64 if attack.kind == "transfer" else "",
    )
    if made.version == 1 and not certified:
        table = pq.read_table(pa.BufferReader(shards.read(name))).drop_columns(list(NEWER))
        footer = json.loads(table.schema.metadata[FOOTER_KEY]) | {"schema_version": 1}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({FOOTER_KEY: json.dumps(footer).encode()}), sink)
        shards.delete(name)
        shards.publish(name, sink.getvalue())
    return name


def spiced(rows: pa.Table, made: Made) -> pa.Table:
    """With what is rare in rows: NaN, flags, kept images of which one cannot be what its row says."""
    values = rows.to_pylist()
    for row in values:
        if row["position"] % 4 == 1:
            row |= {"clean_confidence": float("nan"), "flags": ["zero_gradients", "probabilities"]}
        row["ssim"] = float(np.float32(0.1 * (1 + row["position"]) * (1 + row["epsilon"])))
        if made.images and row["success"]:
            image = np.full((2, 2, 1), 0.5 + 5 * row["epsilon"] * made.images, np.float32)
            row |= {"image": image.tobytes(), "image_shape": [2, 2, 1], "clean_image": b"\x01\x02\x03\x04"}
    return pa.Table.from_pylist(values, schema=rows.schema)


def wanted() -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "cell_id": cell_id(victim, attack, i),
                "victim_id": victim.victim_id,
                "attack_id": attack.attack_id,
                "norm": attack.norm,
                "epsilon": EPSILONS[i],
                "examples": 20,
                "kind": attack.kind,
            }
            for victim in VICTIMS
            for attack in ATTACKS
            for i in range(3)
        ],
        schema=WANTED,
    )


def made_store() -> Store:
    """An empty folder in memory."""
    store = Store("unused")
    store.folder = Folder(fs._MockFileSystem(), "out")
    store.shards = store.folder.folder("shards")
    store.index = ShardIndex(store.folder.folder("index"))
    return store


PINS = {victim.victim_id: Pin(victim.victim_id, "1" * 64, {}) for victim in VICTIMS}


def seen(store: Store) -> list[str]:
    """All that readers may see of the shards, as text, in which NaN is equal to NaN."""
    accepted = store.accepted_shards(PINS)
    order = [(name, "ascending") for name in ("cell_id", "position")]
    datasets = [accepted.dataset(kind).to_table() for kind in ("attack", "transfer", "certificate")]
    attacks = pa.concat_tables([of_kind(wanted(), "attack"), of_kind(wanted(), "transfer")])
    nothing_kept = Folder(fs._MockFileSystem(), "measured")
    cells, by_attack = measured_results(accepted, attacks, nothing_kept)
    return [
        *(repr(table.sort_by(order).to_pylist()) for table in datasets),
        repr(accepted.coverage_table().to_pylist()),
        repr([(one.name, one.reason) for one in accepted.set_aside]),
        repr(sorted(info.name for info in accepted.twice)),
        repr(cells.sort_by("cell_id").to_pylist()),
        repr(by_attack.sort_by([("victim_id", "ascending"), ("attack_id", "ascending")]).to_pylist()),
        repr(accepted.warnings()),
        repr(sorted((kept.name, kept.size, kept.mtime_ns) for kept in accepted.infos)),
    ]


@contextmanager
def after_each(step: Callable[[str, str], None]) -> Iterator[None]:
    """Call `step` after whatever is published or deleted, by which method and of which name."""
    originals = {name: getattr(Folder, name) for name in ("publish", "delete")}
    inside = threading.local()

    def wrapped(method: str) -> Callable[..., None]:
        def call(folder: Folder, name: str, *data: Any) -> None:
            originals[method](folder, name, *data)
            if not getattr(inside, "busy", False):
                inside.busy = True
                try:
                    step(method, name)
                finally:
                    inside.busy = False

        return call

    with patch.multiple(Folder, publish=wrapped("publish"), delete=wrapped("delete")):
        yield


@st.composite
def shards(draw: st.DrawFn) -> list[Made]:
    found = []
    for _ in range(draw(st.integers(2, 7))):
        start = draw(st.integers(0, 12))
        found.append(
            Made(
                victim=draw(st.sampled_from([0, 0, 0, 1])),
                attack=draw(st.sampled_from([0, 0, 1, 2, 3])),
                start=start,
                stop=draw(st.integers(start + 1, 16)),
                cells=tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))),
                weights=draw(st.sampled_from("1112")),
                version=draw(st.sampled_from([4, 4, 1])),
                images=draw(st.booleans()),
            )
        )
    return found


@settings(max_examples=15, deadline=None)
@given(
    shards(),
    st.lists(shards(), max_size=1),
    st.sampled_from([Limits(), Limits(shards=4), Limits(rows=60), Limits(bytes=40_000)]),
)
def test_nobody_can_tell_at_any_moment(first: list[Made], later: list[list[Made]], limits: Limits) -> None:
    store = made_store()
    for batch in (first, *later):
        for made in batch:
            put(store.shards, made)
        before = seen(store)
        steps = []

        def step(method: str, name: str, before: list[str] = before, steps: list[str] = steps) -> None:
            steps.append(method)
            assert seen(store) == before

        with after_each(step), patch("orchestrator.store.listing.READERS", 1):
            done = compact_pinned(store, limits)
        assert not done.left and seen(store) == before
        accepted = store.accepted_shards(PINS)
        assert not accepted.superseded
        counting = [info for pieces in accepted.pieces().values() for info, _ in pieces]
        if limits == Limits():  # all of a victim's lie in one file, unless there is one alone
            assert len({info.path for info in counting}) == len(
                {(one.victim_id, one.kind) for one in counting}
            )
        if done.merged:
            assert {"publish", "delete"} <= set(steps)
        with after_each(lambda method, name: pytest.fail(f"{method} {name} with nothing to do")):
            assert not compact_pinned(store, limits).merged


def compact_pinned(store: Store, limits: Limits | None = None, grace: float = 0.0) -> Any:
    with patch.object(Store, "pins", lambda self: PINS):
        return compact(store, grace=grace, limits=limits or Limits())


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A folder with shards that count as a whole, in part, twice, and not at all."""
    store = Store(str(tmp_path / "out"))
    for made in (
        Made(start=0, stop=5, images=True),
        Made(start=5, stop=10),
        Made(start=3, stop=12),
        Made(start=1, stop=2),
        Made(start=12, stop=16, weights="2"),
        Made(start=12, stop=16, version=1),
        Made(attack=1, start=0, stop=4, cells=(2,)),
        Made(victim=1, attack=3, start=0, stop=4),
        Made(victim=1, attack=3, start=4, stop=8),
    ):
        put(store.shards, made)
    return store


class Killed(BaseException):
    """As kill -9: nothing behind it runs, but for what lets go of threads."""


def test_it_goes_on_from_wherever_it_was_killed(local: Store, tmp_path: Path) -> None:
    before = seen(local)
    steps: list[str] = []
    whole = tmp_path / "whole"
    shutil.copytree(local.location, whole, copy_function=shutil.copy2)
    with after_each(lambda method, name: steps.append(method)):
        compact_pinned(Store(str(whole)))
    assert {"publish", "delete"} <= set(steps) and len(steps) > 10
    for last in range(1, len(steps) + 1):
        output = tmp_path / f"killed{last}"
        shutil.copytree(local.location, output, copy_function=shutil.copy2)
        store, left = Store(str(output)), [last]

        def step(method: str, name: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with after_each(step), patch("orchestrator.store.listing.READERS", 1), pytest.raises(Killed):
            compact_pinned(store)
        assert seen(store) == before
        compact_pinned(store)
        assert seen(store) == before
        assert sorted(path.name.partition(".")[0] for path in output.glob("shards/*/*")) == [
            "fgsm-linf-0123456789",  # stored twice
            "fgsm-linf-0123456789",  # of other weights
            "merged",
            "merged",
        ]


def test_what_is_merged_stays_for_its_grace(local: Store) -> None:
    before = seen(local)
    done = compact_pinned(local, grace=60.0)
    assert (done.merged, len(done.into), done.removed, done.waiting) == (7, 2, 0, 7)
    accepted = local.accepted_shards(PINS)
    plan = plan_compaction(accepted, grace=60.0)
    assert not plan.groups and not plan.removable and len(plan.waiting) == 7
    assert len(plan_compaction(accepted, grace=60.0, now=time.time() + 61).removable) == 7
    assert not plan_compaction(accepted, grace=60.0, now=time.time() - 3600).removable  # a clock set back
    again = compact_pinned(local, grace=60.0)
    assert (again.merged, again.removed, again.waiting) == (0, 0, 7) and seen(local) == before
    local.shards.delete(done.into[0][0])  # then what was merged into it is all that there is
    assert seen(local) == before
    assert compact_pinned(local).removed == 7 and seen(local) == before


def test_what_is_merged_is_what_the_files_take(local: Store) -> None:
    """Half of a merged file's shards lie in another: it is read for the rest, and goes with that."""
    before = seen(local)
    compact_pinned(local, Limits(shards=3), grace=60.0)
    for made in (Made(start=16, stop=18), Made(start=18, stop=20)):
        put(local.shards, made)
    more = seen(local)
    assert more != before
    compact_pinned(local, Limits(shards=5), grace=60.0)
    compact_pinned(local, Limits(shards=50), grace=60.0)
    assert seen(local) == more
    compact_pinned(local, Limits(shards=50))
    assert seen(local) == more and not local.accepted_shards(PINS).superseded


@pytest.mark.parametrize("grace", [0.0, 60.0])
def test_two_at_once_lose_nothing(local: Store, grace: float) -> None:
    """Another merges the same, and perhaps removes it, while this one is to publish what it has made."""
    before, publish = seen(local), Folder.publish
    others: list[Any] = []

    def late(folder: Folder, name: str, data: Any) -> None:
        if "merged" in name and not others:
            others.append(None)
            others[0] = compact_pinned(Store(local.location), grace=grace)
            assert seen(local) == before
        publish(folder, name, data)

    with patch.object(Folder, "publish", late):
        compact_pinned(local)
    assert others[0].merged == 7 and seen(local) == before
    compact_pinned(local)
    accepted = local.accepted_shards(PINS)
    assert seen(local) == before and not accepted.superseded
    assert len({info.path for info in accepted.infos}) == 4


def test_only_what_counts_in_part_is_read_before_it_is_asked_for(local: Store) -> None:
    compact_pinned(local)
    accepted, tables, read = local.accepted_shards(PINS), Rows.tables, []

    def noted(rows: Rows, pieces: Sequence[Piece], columns: Sequence[str]) -> Any:
        read.extend(piece.info.name for piece in pieces)
        return tables(rows, pieces, columns)

    with patch.object(Rows, "tables", noted):
        dataset = accepted.dataset()
    partly = {info.name for pieces in accepted.pieces().values() for info, ranges in pieces if ranges}
    assert set(read) == partly != set()
    rows = dataset.to_table()
    (told,) = (
        duckdb.connect()
        .from_arrow(dataset)
        .filter("epsilon = 0.1 AND position >= 4")
        .aggregate("count(*) AS n, sum(forward_calls) AS calls, count(DISTINCT position) AS positions")
        .fetchall()
    )
    expected = rows.filter((pc.field("epsilon") == 0.1) & (pc.field("position") >= 4))
    calls, positions = (
        pc.sum(expected["forward_calls"]).as_py(),
        pc.count_distinct(expected["position"]).as_py(),
    )
    assert told == (expected.num_rows, calls, positions) and expected.num_rows > 10


def flip(path: Path, what: bytes) -> None:
    data = path.read_bytes()
    place = data.index(what)
    path.write_bytes(data[: place + 1] + bytes([data[place + 1] ^ 1]) + data[place + 2 :])


def test_a_merged_file_that_is_damaged_replaces_nothing(local: Store) -> None:
    done = compact_pinned(local, grace=60.0)
    path = next(Path(local.location).glob("shards/net0-*/merged.*"))
    size = path.stat().st_size
    data = bytearray(path.read_bytes())
    for place in range(200, size // 3, 97):  # in the pages of its columns
        data[place] ^= 0xFF
    path.write_bytes(data)
    again = compact_pinned(local)
    assert again.removed == 2 and {one.name for one in again.left} >= {f"{path.parent.name}/{path.name}"}
    path.unlink()
    assert len(local.accepted_shards(PINS).infos) == 9 and done.merged == 7


def test_rows_in_each_others_place_are_seen_before_there_is_a_file(local: Store) -> None:
    before, add = seen(local), Merger.add

    def mixed(merger: Merger, members: Sequence[Any]) -> None:
        rows = [member.rows for member in members][::-1]
        add(merger, [member._replace(rows=own) for member, own in zip(members, rows, strict=True)])

    with patch.object(Merger, "add", mixed):
        done = compact_pinned(local)
    assert len(done.left) == 7 and not done.into and not done.removed
    assert "other rows stand where those of" in done.left[0].reason and seen(local) == before


def test_a_shard_that_cannot_be_read_whole_stays(local: Store) -> None:
    path = max(Path(local.location).glob("shards/net0-*/bim-*"))
    metadata = pq.read_metadata(path).row_group(0)
    columns = [metadata.column(i) for i in range(metadata.num_columns)]
    [column] = [each for each in columns if each.path_in_schema == "linf"]
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 2] ^= 1  # which no footer tells
    path.write_bytes(data)
    done = compact_pinned(local)
    assert [one.name for one in done.left] == [f"{path.parent.name}/{path.name}"] and path.exists()
    assert done.removed == 6


def test_a_later_version_is_left_alone(local: Store) -> None:
    compact_pinned(local)
    path = next(Path(local.location).glob("shards/net0-*/merged.*"))
    with patch("orchestrator.store.merged.MERGED_VERSION", 0):
        accepted = fresh(local).accepted_shards(PINS)
        assert any("merged by a later robustsweep" in warning for warning in accepted.warnings())
        with patch.object(Store, "existing", lambda location: Store(location)):
            found = [one.what for one in removable_output(local.location)]
        assert not any("merged" in name for name in found), found
    assert path.exists()


def fresh(store: Store) -> Store:
    """The same without an index."""
    shutil.rmtree(Path(store.location) / "index", ignore_errors=True)
    return Store(store.location)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda footer: footer["members"][0].__setitem__(3, 7), "row group"),
        (lambda footer: footer["members"].append(footer["members"][0]), "shard twice"),
        (lambda footer: footer["members"].pop(), "row groups of"),
        (lambda footer: footer["members"][0].__setitem__(0, "other/x.parquet"), "belongs to victim"),
        (lambda footer: footer["members"][0].__setitem__(4, 99), "lacks or garbles"),
        (lambda footer: footer.__delitem__("generation"), "lacks or garbles 'generation'"),
        (lambda footer: footer.__setitem__("kind", "certificate"), "lacks or garbles the kind"),
    ],
)
def test_a_merged_footer_that_cannot_be_true_is_set_aside(
    local: Store, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    compact_pinned(local, grace=60.0)
    before = seen(local)
    path = next(Path(local.location).glob("shards/net0-*/merged.*"))
    parquet = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
    footer = json.loads(zlib.decompress(base64.b64decode(parquet.metadata.metadata[MERGED_KEY])))
    change(footer)
    with pq.ParquetWriter(path, parquet.schema_arrow, compression="zstd") as writer:
        for i in range(parquet.num_row_groups):
            writer.write_table(parquet.read_row_group(i))
        packed = base64.b64encode(zlib.compress(json.dumps(footer).encode()))
        writer.add_key_value_metadata({MERGED_KEY: packed})
    accepted = fresh(local).accepted_shards(PINS)
    assert any(reason in one.reason for one in accepted.set_aside), accepted.set_aside
    assert [one for one in seen(local) if one.startswith("[{")] == [
        one for one in before if one.startswith("[{")
    ]


def test_readers_and_writers_go_on_meanwhile(tmp_path: Path) -> None:
    """A writer publishes, a reader polls and reads every row, both while all is merged over and over."""
    output = str(tmp_path / "out")
    published: list[int] = []
    problems: list[str] = []
    over = threading.Event()
    looks, merges = [0], [0]

    def write() -> None:
        store = Store(output)
        while len(published) < 60 or (merges[0] < 3 and len(published) < 5000):
            start = len(published)
            put(store.shards, Made(attack=start % 2, start=start, stop=start + 1))
            published.append(start)
        over.set()

    def read() -> None:
        reader = Store(output)
        while not over.is_set() or looks[0] < 5:
            least = len(published)

            def look() -> tuple[pa.Table, dict[str, Any]]:
                accepted = reader.accepted_shards(PINS)
                reader.remember(accepted)
                return accepted.dataset().to_table(), accepted.coverage

            try:
                rows, coverage = again(look)()
            except Exception as error:
                problems.append(repr(error))
                return
            there = set(rows["position"].to_pylist())
            covered = {p for ranges in coverage.values() for a, b in ranges for p in range(a, b)}
            if not set(range(least)) <= there or there != covered:
                problems.append(f"{least} published, {len(there)} seen, {len(covered)} covered")
            if set(times_counted(rows)) - {1}:
                problems.append("rows twice")
            looks[0] += 1

    threads = [threading.Thread(target=one) for one in (write, read)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        done = compact_pinned(Store(output))
        merges[0] += bool(done.removed)
        problems += [one.reason for one in done.left]
    for thread in threads:
        thread.join()
    assert not problems and merges[0] >= 3 and looks[0] >= 5
    compact_pinned(Store(output))
    assert len(list(Path(output).glob("shards/*/*"))) == 1


def test_a_listing_that_was_overtaken_is_made_again(local: Store) -> None:
    """It passes by where the merged file is to appear, and comes to the shards when they have gone."""
    before, files = seen(local), Folder.files
    overtaken: list[int] = []

    def slow(folder: Folder, name: str = "", *, recursive: bool = False) -> list[fs.FileInfo]:
        found = files(folder, name, recursive=recursive)
        if not overtaken and recursive and folder.path.endswith("shards"):
            overtaken.append(len(found))
            compact_pinned(Store(local.location))
            found = [one for one in found if Path(one.path).exists()]
            overtaken.append(len(found))
        return found

    with patch.object(Folder, "files", slow):
        assert seen(local) == before
    assert overtaken == [9, 2]


@pytest.mark.parametrize("grace", [0.0, 60.0])
def test_a_shard_that_goes_before_its_footer_is_read_is_looked_for(local: Store, grace: float) -> None:
    before, read = seen(local), listing.read_file
    asked: list[str] = []

    def late(shards: Folder, name: str, **of: int) -> Any:
        asked.append(name)
        if len(asked) == 1:
            compact_pinned(Store(local.location), grace=grace)
        return read(shards, name, **of)

    with patch.object(listing, "read_file", late), patch.object(listing, "READERS", 1):
        assert seen(fresh(local)) == before
    assert len(asked) > 9 or grace


# -- whole sweeps -----------------------------------------------------------------------------------------


GRID: dict[str, Any] = {
    "name": "one",
    "models": ["small_cnn"],
    "datasets": ["digits"],
    "attacks": ["fgsm", {"name": "bim", "steps": 20}, "deepfool"],
    "epsilons": {"linf": [0, "8/255", 0.1], "l2": [0.5]},
    "examples": 60,
    "slice": 20,
}


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    output = tmp_path / "one"
    sweep(load_grid(GRID), output, runner="tests.support.runners:MadeUp")
    keep_images(output)
    return output


def views(output: Path) -> dict[str, list[str]]:
    results, warnings = locate.read_results({"one": Store(str(output))})
    with connect(results) as connection:
        tables = {view: connection.sql(f"FROM {view}").to_arrow_table().to_pylist() for view in VIEWS}
    return {"warnings": warnings, **{view: sorted(map(repr, rows)) for view, rows in tables.items()}}


def robustsweep_cli(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def forget(output: Path) -> None:
    for name in ("index", "measured"):
        shutil.rmtree(output / name, ignore_errors=True)


def test_a_sweep_is_what_it_was(swept: Path) -> None:
    before = views(swept)
    assert "would merge 9 files" in robustsweep_cli("compact", swept, "--dry-run")
    assert len(list(swept.glob("shards/*/*"))) == 9
    text = robustsweep_cli("compact", swept)
    assert "merged 9 files" in text and "into 1" in text and "9 files" in text.partition("into 1")[2]
    assert views(swept) == before and "nothing to remove" in robustsweep_cli("clean", swept)
    assert "9 files" in robustsweep_cli("compact", swept, "--dry-run")
    assert "removed 9 files" in robustsweep_cli("compact", swept, "--grace", "0")
    assert len(list(swept.glob("shards/*/*"))) == 1
    assert "nothing to merge" in robustsweep_cli("compact", swept, "--grace", "0")
    assert views(swept) == before and "nothing to remove" in robustsweep_cli("clean", swept)
    forget(swept)
    assert views(swept) == before
    summary = sweep(load_grid(GRID), swept, runner="tests.support.runners:MadeUp")
    assert (summary.exit_code, summary.state.units) == (0, 0)
    more = sweep(load_grid({**GRID, "examples": 80}), swept, runner="tests.support.runners:MadeUp")
    assert more.exit_code == 0 and len(list(swept.glob("shards/*/*"))) == 4
    assert "--grace" in robustsweep_cli("compact", swept, "--grace", "soon", code=2)
    assert "no such output folder" in robustsweep_cli("compact", swept / "nowhere", code=2)


def test_a_full_disk_is_said(swept: Path) -> None:
    before = views(swept)

    def full(folder: Folder, name: str, data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with patch.object(Folder, "publish", full):
        text = robustsweep_cli("compact", swept, "--grace", "0", code=2)
    assert "No space left on device" in text and "nothing in" in text
    assert views(swept) == before and len(list(swept.glob("shards/*/*"))) == 9


def test_from_python(swept: Path) -> None:
    (row,) = robustsweep.compact(swept, grace=0).to_pylist()
    assert (row["sweep"], row["merged"], row["into"], row["removed"], row["left"]) == ("one", 9, 1, 9, 0)


def test_attacks_on_survivors_are_merged_too(swept: Path) -> None:
    inside = swept / "strengthened"
    shutil.copytree(swept / "shards", inside / "shards")
    assert len(robustsweep.compact(swept, grace=0).to_pylist()) == 2
    assert len(list(inside.glob("shards/*/*"))) == 1


def test_what_was_opened_before_is_looked_at_anew(swept: Path) -> None:
    before = views(swept)
    forget(swept)
    opened = robustsweep.open(swept)
    watched = Watched({"one": Store(str(swept))})
    watched._read()
    robustsweep.compact(swept, grace=0)
    forget(swept)
    answer = watched.ask("SELECT count(*) AS n FROM examples")
    assert answer["rows"] == [[len(before["examples"])]]
    for view in ("examples", "cells"):
        assert sorted(map(repr, getattr(opened, view).arrow().to_pylist())) == before[view], view
    cell = next(row["cell_id"] for row in opened.cells.arrow().to_pylist() if row["attack"] == "fgsm")
    assert len(opened.images(cell, broken=None)) and opened.plot.curves()
    with pytest.raises(robustsweep.UserError, match="no cell"):
        opened.images("nowhere")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("table", "--format", "csv"), "small_cnn"),
        (("query", "SELECT count(*) AS n, sum(success::INT) AS broken FROM examples"), "420"),
        (("verify", "--format", "csv"), ""),
    ],
)
def test_a_command_begins_again_when_its_files_go(
    swept: Path, command: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *rest = command
    arguments = (name, swept, *rest)
    code = CliRunner().invoke(app, [str(one) for one in arguments]).exit_code
    before = robustsweep_cli(*arguments, code=code)
    forget(swept)
    read, times = locate.read_results, []

    def then_merged(stores: Any) -> Any:
        found = read(stores)
        times.append(len(times))
        if len(times) == 1:
            robustsweep.compact(swept, grace=0)
            forget(swept)
        return found

    monkeypatch.setattr(locate, "read_results", then_merged)
    assert robustsweep_cli(*arguments, code=code) == before and expected in before
    assert len(times) == 2


def test_a_run_ends_with_tables_of_what_is_there_then(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (swept / "tables" / "robustness.csv").read_bytes()
    forget(swept)
    shutil.rmtree(swept / "tables")
    results = Store.results
    times = []

    def then_merged(store: Store, *arguments: Any, **options: Any) -> Any:
        found = results(store, *arguments, **options)
        times.append(len(times))
        if len(times) == 1:
            compact(store, grace=0)
            forget(swept)
        return found

    monkeypatch.setattr(Store, "results", then_merged)
    assert sweep(load_grid(GRID), swept, runner="tests.support.runners:MadeUp").exit_code == 0
    assert (swept / "tables" / "robustness.csv").read_bytes() == before and len(times) == 2


def test_what_fails_for_another_reason_is_not_done_again(local: Store) -> None:
    calls = []

    @again
    def look() -> None:
        calls.append(local.accepted_shards(PINS))
        if len(calls) < 3:
            compact_pinned(local)
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        look()
    assert len(calls) == 2  # the first time, what it had listed was merged

    @again
    def told() -> None:
        calls.append(local.accepted_shards(PINS))
        once()
        shutil.rmtree(Path(local.location) / "shards")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        told()
    assert len(calls) == 3


def test_a_merged_file_is_rubbish_once_all_of_it_is(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compact_pinned(local)
    monkeypatch.setattr(Store, "existing", lambda location: Store(location))
    monkeypatch.setattr("orchestrator.clean.existing_output", lambda name: local)
    mine = {name: replace(pin, weights="3" * 64) for name, pin in PINS.items()}
    for pins, expected in ((PINS, 0), (mine, 2)):
        monkeypatch.setattr("orchestrator.store.folder.named_pins", lambda output, pins=pins: pins)
        found = [one.what for one in removable_output(local.location)]
        assert sum("/merged." in name for name in found) == expected, found
