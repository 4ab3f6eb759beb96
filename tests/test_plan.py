"""Cells, less what is there, as units: everything missing exactly once, nothing else."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.grid.load import load_grid
from orchestrator.intervals import Interval, add, subtract
from orchestrator.plan.cells import expand
from orchestrator.plan.units import Plan, make_plan
from tests.support.victims import cells_of

N = 60
VICTIMS = list(expand(load_grid("digits")))
CELLS = cells_of(load_grid("digits"))


def make(
    coverage: dict[str, list[Interval]], *, examples: int = N, slice_size: int = 25, **rest: object
) -> Plan:
    return make_plan(
        VICTIMS,
        examples={"digits": examples},
        slice_size=slice_size,
        keep=8,
        coverage=coverage,
        **rest,  # type: ignore[arg-type]
    )


def work(plan: Plan) -> Counter[tuple[str, int]]:
    """How often each (cell, position) is planned."""
    return Counter(
        (cell_id, position)
        for victim in plan.todo
        for unit in plan.units(victim)
        for cell_id, _ in unit.cells
        for position in range(unit.start, unit.stop)
    )


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    result: list[Interval] = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, N))
        result = add(result, start, draw(st.integers(start + 1, N + 20)))
    return result


def positions(parts: list[Interval]) -> set[int]:
    return {position for start, stop in parts for position in range(start, stop)}


@given(intervals(), intervals())
def test_subtract_is_set_difference(a: list[Interval], b: list[Interval]) -> None:
    assert positions(subtract(a, b)) == positions(a) - positions(b)
    assert subtract(a, b) == sorted(subtract(a, b))


@given(intervals(), st.integers(0, N), st.integers(1, 30))
def test_add_is_set_union(a: list[Interval], start: int, length: int) -> None:
    result = add(a, start, start + length)
    assert positions(result) == positions(a) | set(range(start, start + length))
    assert all(left[1] < right[0] for left, right in pairwise(result))


@given(
    st.dictionaries(st.sampled_from([cell.cell_id for cell in CELLS]), intervals(), max_size=8),
    st.dictionaries(st.sampled_from([cell.cell_id for cell in CELLS]), intervals(), max_size=3),
    st.integers(1, N + 20),
    st.integers(1, 40),
)
def test_units_cover_what_is_missing_exactly_once(
    coverage: dict[str, list[Interval]], failed: dict[str, list[Interval]], examples: int, slice_size: int
) -> None:
    plan = make(coverage, examples=examples, slice_size=slice_size, failed=failed)
    wanted = {
        (cell.cell_id, position)
        for cell in CELLS
        for position in set(range(examples))
        - positions(coverage.get(cell.cell_id, []))
        - positions(failed.get(cell.cell_id, []))
    }
    planned = work(plan)
    assert set(planned) == wanted
    assert set(planned.values()) <= {1}
    units = [unit for victim in plan.todo for unit in plan.units(victim)]
    assert len(units) == plan.unit_count == len({unit.unit_id for unit in units})
    for unit in units:
        assert unit.start // slice_size == (unit.stop - 1) // slice_size  # cut at multiples of the slice
        assert [epsilon for _, epsilon in unit.cells] == sorted(epsilon for _, epsilon in unit.cells)
    assert plan.done_cells + plan.failed_cells + plan.open_cells == len(CELLS)
    assert plan.done_cells == sum(
        set(range(examples)) <= positions(coverage.get(cell.cell_id, [])) for cell in CELLS
    )


def test_one_unit_serves_every_epsilon_of_an_attack() -> None:
    plan = make({})
    units = [unit for victim in plan.todo for unit in plan.units(victim)]
    assert [(unit.start, unit.stop) for unit in units[:3]] == [(0, 25), (25, 50), (50, 60)]
    assert all(len(unit.cells) == 6 for unit in units)
    assert len(units) == 2 * 2 * 3


def test_more_examples_add_only_the_new_ones_and_fewer_add_none() -> None:
    done = {cell.cell_id: [(0, 50)] for cell in CELLS}
    assert {position for _, position in work(make(done, examples=N))} == set(range(50, 60))
    assert make(done, examples=40).unit_count == 0
    assert make(done, examples=50, slice_size=7).unit_count == 0


def test_a_failed_victim_is_left_alone() -> None:
    victim = CELLS[0].victim.victim_id
    plan = make({}, failed_victims=frozenset({victim}))
    assert [one.victim.victim_id for one in plan.todo] == [CELLS[-1].victim.victim_id]
    assert plan.failed_cells == 12
