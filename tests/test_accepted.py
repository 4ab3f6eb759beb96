"""Which shards count: every (cell, position) exactly once, whatever overlaps, whatever the listing order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from orchestrator.store.accepted import Accepted, SetAside, accept
from tests.support.runners import made_up_rows
from tests.support.sweeps import times_counted
from tests.support.victims import attack_spec, some_victim
from workers.pins import Pin
from workers.shards import ShardInfo, publish_shard, read_footer
from workers.storage import Folder
from workers.unit import Evaluation

CELLS = ("a", "b", "c")
NOWHERE = Folder(fs._MockFileSystem(), "nowhere")


def info(
    name: str, start: int, stop: int, cells: tuple[str, ...], at: int = 0, weights: str = "1"
) -> ShardInfo:
    return ShardInfo(
        name=name,
        size=1,
        mtime_ns=1,
        victim_id="v",
        attack_id="x",
        start=start,
        stop=stop,
        cells=cells,
        weights=weights * 64,
        published_at=f"2030-01-01T00:00:{at:02d}",
        seconds=6.0,
        device="d",
        code="c",
        versions="v",
    )


def pins(weights: str) -> dict[str, Pin]:
    return {"v": Pin("v", weights * 64, {})}


@st.composite
def shards(draw: st.DrawFn) -> list[ShardInfo]:
    """Overlapping shards of one victim, some of other weights, some published at the same moment."""
    found = []
    for number in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, 20))
        cells = draw(st.lists(st.sampled_from(CELLS), min_size=1, unique=True))
        stop = draw(st.integers(start + 1, 25))
        at, weights = draw(st.integers(0, 3)), draw(st.sampled_from("112"))
        found.append(info(f"v/{number}", start, stop, tuple(cells), at, weights))
    return found


def held(infos: list[ShardInfo], weights: str) -> set[tuple[str, int]]:
    return {
        (cell, position)
        for one in infos
        if one.weights == weights * 64
        for cell in one.cells
        for position in range(one.start, one.stop)
    }


def counted(accepted: Accepted) -> Counter[tuple[str, int]]:
    return Counter(
        (row["cell_id"], position)
        for row in accepted.coverage_table().to_pylist()
        for position in range(row["start"], row["stop"])
    )


@given(shards(), st.sampled_from("12"), st.randoms())
def test_each_cell_and_position_counts_once_in_any_order(infos: list[ShardInfo], pin: str, random) -> None:  # type: ignore[no-untyped-def]
    accepted = accept(NOWHERE, infos, [], pins(pin))
    assert counted(accepted) == Counter(held(infos, pin))
    covered = {
        (cell, position)
        for cell, intervals in accepted.coverage.items()
        for start, stop in intervals
        for position in range(start, stop)
    }
    assert covered == held(infos, pin)
    assert {one.name for one in accepted.set_aside} == {one.name for one in infos if one.weights != pin * 64}
    shuffled = infos.copy()
    random.shuffle(shuffled)
    again = accept(NOWHERE, shuffled, [], pins(pin))
    key = lambda row: (row["cell_id"], row["start"])  # noqa: E731
    assert sorted(again.coverage_table().to_pylist(), key=key) == sorted(
        accepted.coverage_table().to_pylist(), key=key
    )
    assert again.warnings() == accepted.warnings()


def test_what_was_published_first_counts() -> None:
    first, second = info("v/z", 0, 10, ("a",), at=1), info("v/a", 5, 15, ("a", "b"), at=2)
    accepted = accept(NOWHERE, [second, first], [], {})
    assert accepted._whole == [first]
    assert accepted._parts == [(second, {"a": [(10, 15)], "b": [(5, 15)]})]
    seconds = {
        (row["cell_id"], row["start"]): row["seconds"] for row in accepted.coverage_table().to_pylist()
    }
    assert seconds == {("a", 0): 6.0, ("a", 10): 1.5, ("b", 5): 3.0}


def test_without_pins_the_smaller_hash_counts_as_it_would_with_two() -> None:
    infos = [info("v/1", 0, 10, ("a",), weights="2"), info("v/2", 0, 10, ("a",), weights="1")]
    for order in (infos, infos[::-1]):
        assert counted(accept(NOWHERE, order, [], {})) == counted(accept(NOWHERE, infos, [], pins("1")))


def test_warnings_say_each_reason_once() -> None:
    broken = [SetAside(f"v/{n}", "the file is empty") for n in (3, 1, 2)]
    other = info("v/other", 0, 10, ("a",), weights="2")
    accepted = accept(NOWHERE, [other], broken, pins("1"))
    assert accepted.warnings() == [
        "set aside shards/v/1 and 2 more: the file is empty",
        "set aside shards/v/other: its victim had weights 222222222222…, this folder is pinned to "
        "111111111111…",
    ]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_without_a_pin_the_smaller_hash_counts_whoever_came_first(order: tuple[int, int]) -> None:
    """As of two pins: a folder that lost its pins must not show other numbers than it did."""
    first, second = (info(f"v/{weights}", 0, 10, ("a",), at, weights) for at, weights in enumerate("21"))
    accepted = accept(NOWHERE, [(first, second)[i] for i in order], [], {})
    assert [one.name for one in accepted.set_aside] == ["v/2"]
    assert set(counted(accepted)) == held([second], "1")


VICTIM, ATTACK = some_victim("v"), attack_spec()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 20), st.integers(1, 12), st.lists(st.sampled_from(CELLS), min_size=1, unique=True)
        ),
        max_size=5,
    )
)
def test_rows_of_overlapping_files_are_read_once(parts: list[tuple[int, int, list[str]]]) -> None:
    folder = Folder(fs._MockFileSystem(), "bucket/shards")
    infos = []
    for start, length, cells in parts:
        epsilons = tuple((cell, CELLS.index(cell) / 10) for cell in sorted(cells))
        unit = Evaluation("u", VICTIM, ATTACK, epsilons, start, start + length)
        name = publish_shard(
            folder, unit, made_up_rows(unit), weights="1" * 64, phases={}, provenance={"device": "d"}
        )
        infos.append(read_footer(folder, name, size=1, mtime_ns=1))
    accepted = accept(folder, infos, [], {})
    table = accepted.dataset().to_table()
    wanted = held(infos, "1")
    assert set(zip(table["cell_id"].to_pylist(), table["position"].to_pylist(), strict=True)) == wanted
    assert times_counted(table) == ({1: len(wanted)} if wanted else {})
    assert accepted.dataset().count_rows() == len(wanted)
