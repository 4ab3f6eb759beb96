"""Two runs into one folder at once: what each begins with, and how little they do twice."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.clean import removable_output, remove
from orchestrator.cli import app
from orchestrator.plan.units import Gap, Units
from orchestrator.results.judged import cells_table
from orchestrator.run import status, upkeep
from orchestrator.run.loop import Loop
from orchestrator.run.sharing import Peers, Share, in_turn
from orchestrator.run.sweep import Summary
from orchestrator.store.folder import Store
from orchestrator.store.records import Status
from tests.support.sweeps import NOW, Quiet, record, sweep, write_grid
from tests.support.victims import attack_spec, victim_spec
from workers.unit import Evaluation

SLICE = 10


@st.composite
def unit_lists(draw: st.DrawFn) -> Units:
    """The units of a few gaps of one victim."""
    spans = draw(st.lists(st.tuples(st.integers(0, 95), st.integers(1, 130)), max_size=5))
    gaps = [
        Gap(victim_spec(), attack_spec(), ((f"c{place}", 0.1),), start, start + length)
        for place, (start, length) in enumerate(spans)
    ]
    return Units(gaps, SLICE, 0)


def ids(units: Sequence[Evaluation]) -> list[str]:
    return [unit.unit_id for unit in units]


@given(unit_lists())
def test_units_of_gaps_are_cut_at_multiples_of_the_slice(units: Units) -> None:
    listed = list(units)
    assert len(units) == len(listed) == len(set(ids(listed)))
    assert units[::-1] == listed[::-1]
    for unit in listed:
        assert unit.start // SLICE == (unit.stop - 1) // SLICE


@given(unit_lists(), st.integers(1, 4))
def test_every_run_computes_everything_but_its_share_first(units: Units, of: int) -> None:
    first: set[str] = set()
    for rank in range(of):
        share = Share(rank, of)
        order = ids(list(in_turn(units, lambda share=share: share)))
        assert sorted(order) == sorted(ids(units))
        own = [name for name in ids(units) if share.has(name)]
        assert order[: len(own)] == own
        assert first.isdisjoint(own)
        first.update(own)
    assert first == set(ids(units))


@given(unit_lists(), st.integers(0, 30))
def test_a_run_that_another_joins_shares_what_is_left(units: Units, alone: int) -> None:
    shares = chain(repeat(Share(), alone), repeat(Share(1, 2)))
    order = ids(list(in_turn(units, lambda: next(shares))))
    assert sorted(order) == sorted(ids(units))
    assert order[:alone] == ids(units)[:alone]
    left = [name for name in ids(units)[alone:] if Share(1, 2).has(name)]
    assert order[alone : alone + len(left)] == left


@given(unit_lists(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=6))
def test_shares_that_change_leave_nothing_out(units: Units, changes: list[tuple[int, int]]) -> None:
    """Runs come and go: every unit once, and those of the share of the moment first."""
    shares = chain(*(repeat(Share(rank, 3), times) for rank, times in changes), repeat(Share(0, 2)))
    now = Share()

    def share() -> Share:
        nonlocal now
        now = next(shares)
        return now

    given_out: list[str] = []
    left = set(ids(units))
    for unit in in_turn(units, share):
        mine = {name for name in left if now.has(name)}
        assert unit.unit_id in (mine or left)
        left.remove(unit.unit_id)
        given_out.append(unit.unit_id)
    assert sorted(given_out) == sorted(ids(units))


def test_a_run_takes_its_share_anew_with_every_run_that_comes() -> None:
    """Beside a run that has died, it was the second of two; beside the one that took its place, it is the
    first, since that one counts itself as second."""
    peers = SimpleNamespace(share=Share(0, 2))
    told: list[str] = []
    loop = SimpleNamespace(
        watching=SimpleNamespace(note=lambda event, **fields: told.append(event)),
        upkeep=SimpleNamespace(news=deque([record()]), peers=peers),
        progress=Quiet(),
        share=Share(1, 2),
        scheduler=SimpleNamespace(),
        _preferred=None,
    )
    Loop._share(loop)  # type: ignore[arg-type]
    assert loop.share == Share(0, 2) and told == ["other_run"]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(upkeep, "PEER_SHARE", 1.0)


def both(grid: Path, output: Path) -> tuple[list[Summary], list[Quiet]]:
    """Two runs at once, in this process."""
    said = [Quiet(), Quiet()]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(sweep, grid, output, progress=quiet) for quiet in said]
        return [future.result() for future in futures], said


def test_two_runs_that_begin_at_once_share_the_work(tmp_path: Path, hurried: None) -> None:
    grid = write_grid(tmp_path / "moods.yaml", ["slow"], examples=400, slice=10)  # 40 units of 0.1 s
    output = tmp_path / "out"
    summaries, said = both(grid, output)
    assert [summary.exit_code for summary in summaries] == [0, 0]
    for summary in summaries:
        state = summary.state
        assert state.units_done == state.units and state.estimate.seconds(1) == 0
        assert state.units_elsewhere >= 10
    assert any("is writing to this folder too" in line for quiet in said for line in quiet.said)
    shards = list((output / "shards").rglob("*.parquet"))
    assert 40 <= len(shards) <= 55  # 80 where neither heeds the other
    assert cells_table(Store(str(output)).results())["n"].to_pylist() == [400, 400]


def test_a_run_elsewhere_lives_where_its_number_moves(tmp_path: Path) -> None:
    sweep(write_grid(tmp_path / "moods.yaml"), tmp_path / "out")
    store = Store(str(tmp_path / "out"))
    [other] = store.run_ids()
    far = record(run_id=other, host="elsewhere", updated_at=(NOW - timedelta(days=900)).isoformat())
    peers = Peers(store, "000002-me")

    def seen(status: Status) -> list[str]:
        store.write_status(status)
        return [one.run_id for one in peers.look()]

    assert seen(far) == [] and peers.share == Share(0, 1)
    assert seen(replace(far, sequence=4)) == [other] and peers.share == Share(1, 2)
    assert seen(replace(far, sequence=5)) == [] and peers.share == Share(1, 2)  # no news, but alive
    assert seen(replace(far, sequence=5)) == [] and peers.share == Share(0, 1)
    assert seen(replace(far, sequence=6, state="finished")) == [] and peers.live == []
    assert seen(replace(far, sequence=7)) == seen(replace(far, sequence=8)) == []  # what has ended is over


def test_clean_finds_rows_stored_twice(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml")
    output = tmp_path / "out"
    sweep(grid, output)
    store = Store(str(output))
    before = store.accepted_shards()
    assert removable_output(str(output)) == []
    kept = output / "kept"
    (output / "shards").rename(kept)
    sweep(grid, output)
    for shard in kept.rglob("*.parquet"):
        target = output / "shards" / shard.relative_to(kept)
        target.parent.mkdir(parents=True, exist_ok=True)
        shard.rename(target)
    after = store.accepted_shards()
    assert len(after.infos) == 2 * len(before.infos) and len(after.twice) == len(before.infos)
    removals = removable_output(str(output))
    assert {removal.why for removal in removals} == {"its rows are stored twice"}
    table = cells_table(store.results())
    remove(removals)
    assert removable_output(str(output)) == []
    assert cells_table(store.results()).drop_columns(["seconds"]).equals(table.drop_columns(["seconds"]))


def test_the_index_is_written_as_the_run_goes(
    tmp_path: Path, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "INDEX_SECONDS", 0.1)
    monkeypatch.setattr(upkeep, "INDEX_SHARE", 1.0)
    grid = write_grid(tmp_path / "moods.yaml", ["slow"], examples=300, slice=10)  # 30 units of 0.1 s
    output = tmp_path / "out"
    known = [0]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sweep, grid, output)
        while not future.done():
            if found := len(Store(str(output)).index.load()):
                known.append(found)
            time.sleep(0.05)
    assert future.result().exit_code == 0
    assert len(set(known)) > 3


def test_tables_and_queries_leave_an_index(tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "moods.yaml")
    sweep(grid, tmp_path / "out")
    index = tmp_path / "out" / "index"
    output = str(tmp_path / "out")
    for command in (["table", output], ["query", output, "SELECT 1"]):
        for segment in index.iterdir():
            segment.unlink()
        assert CliRunner().invoke(app, command).exit_code == 0
        assert len(list(index.iterdir())) == 1
