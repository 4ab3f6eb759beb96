"""Cells, less what the store already holds, as gaps and then as units. Pure: no file is touched here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from orchestrator.identity import Cell, short_hash
from workers.unit import AttackSpec, VictimSpec, WorkUnit

Interval = tuple[int, int]  # positions [start, stop) of the evaluation order


class Gap(NamedTuple):
    """Examples that are missing for the same cells of one victim and one attack."""

    victim: VictimSpec
    attack: AttackSpec
    cells: tuple[tuple[str, float], ...]  # (cell id, epsilon), ascending in epsilon
    start: int
    stop: int


@dataclass
class VictimPlan:
    """What is left to do for one victim."""

    victim: VictimSpec
    gaps: list[Gap] = field(default_factory=list)

    def count(self, slice_size: int) -> int:
        return sum(unit_count(gap, slice_size) for gap in self.gaps)


@dataclass
class Plan:
    """What a run would do. Units are generated from it one at a time, never listed."""

    cells: list[Cell]
    examples: Mapping[str, int]  # wanted, by dataset name: the grid's, capped at the test split
    victims: list[VictimPlan]  # those with something left to do
    slice_size: int
    keep: int
    done_cells: int = 0
    failed_cells: int = 0  # failed for good in an earlier run, and not to be tried again now

    @property
    def open_cells(self) -> int:
        return len(self.cells) - self.done_cells - self.failed_cells

    @property
    def unit_count(self) -> int:
        return sum(victim.count(self.slice_size) for victim in self.victims)

    def units(self, victim: VictimPlan) -> Iterator[WorkUnit]:
        """The evaluation units of one victim, generated on demand."""
        for gap in victim.gaps:
            yield from gap_units(gap, self.slice_size, self.keep)


def make_plan(
    cells: Sequence[Cell],
    *,
    examples: Mapping[str, int],
    slice_size: int,
    keep: int,
    coverage: Mapping[str, Sequence[Interval]],
    failed: Mapping[str, Sequence[Interval]] | None = None,
    failed_victims: frozenset[str] = frozenset(),
) -> Plan:
    """Plan what is missing.

    `coverage` and `failed` give, by cell id, sorted disjoint intervals that accepted shards cover and that
    failed for good; what failed is left out unless it is covered after all.
    """
    failed = failed or {}
    plan = Plan(list(cells), examples, [], slice_size, keep)
    for group in _groups(cells):
        victim, attack = group[0].victim, group[0].attack
        wanted = [(0, examples[victim.dataset["name"]])]
        missing: list[tuple[Cell, list[Interval]]] = []
        for cell in group:
            left = subtract(wanted, coverage.get(cell.cell_id, ()))
            todo = [] if victim.victim_id in failed_victims else subtract(left, failed.get(cell.cell_id, ()))
            if not left:
                plan.done_cells += 1
            elif todo != left:
                plan.failed_cells += 1
            if todo:
                missing.append((cell, todo))
        if missing:
            if not plan.victims or plan.victims[-1].victim.victim_id != victim.victim_id:
                plan.victims.append(VictimPlan(victim))
            plan.victims[-1].gaps.extend(_gaps(victim, attack, missing))
    return plan


def _groups(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Runs of cells with the same victim and attack: `expand` yields them side by side."""
    group: list[Cell] = []
    for cell in cells:
        if group and (cell.attack is not group[0].attack or cell.victim is not group[0].victim):
            yield group
            group = []
        group.append(cell)
    if group:
        yield group


def _gaps(
    victim: VictimSpec, attack: AttackSpec, missing: Sequence[tuple[Cell, Sequence[Interval]]]
) -> Iterator[Gap]:
    """Cut the missing intervals of several cells so that each gap misses the same cells throughout."""
    edges = sorted({edge for _, intervals in missing for interval in intervals for edge in interval})
    last: Gap | None = None
    for start, stop in pairwise(edges):
        cells = tuple(
            (cell.cell_id, cell.epsilon)
            for cell, intervals in missing
            if any(a <= start and stop <= b for a, b in intervals)
        )
        if last and last.cells == cells and last.stop == start:
            last = last._replace(stop=stop)
            continue
        if last:
            yield last
        last = Gap(victim, attack, cells, start, stop) if cells else None
    if last:
        yield last


def gap_units(gap: Gap, slice_size: int, keep: int) -> Iterator[WorkUnit]:
    """Cut a gap at multiples of the slice, so that a resumed sweep cuts as an uninterrupted one does."""
    cells = short_hash(",".join(cell_id for cell_id, _ in gap.cells), 8)
    start = gap.start
    while start < gap.stop:
        stop = min(gap.stop, (start // slice_size + 1) * slice_size)
        unit_id = f"{gap.victim.victim_id}/{gap.attack.attack_id}.{start}-{stop}.{cells}"
        yield WorkUnit(unit_id, gap.victim, gap.attack, gap.cells, start, stop, keep)
        start = stop


def unit_count(gap: Gap, slice_size: int) -> int:
    return -(-gap.stop // slice_size) - gap.start // slice_size


def training_unit(victim: VictimSpec) -> WorkUnit:
    return WorkUnit(f"{victim.victim_id}/train", victim)


def subtract(intervals: Iterable[Interval], covered: Iterable[Interval]) -> list[Interval]:
    """What of `intervals` no interval of `covered` holds; both sorted and disjoint."""
    left = list(intervals)
    for a, b in covered:
        left = [
            part
            for start, stop in left
            for part in ((start, min(stop, a)), (max(start, b), stop))
            if part[0] < part[1]
        ]
    return left


def add(intervals: list[Interval], start: int, stop: int) -> list[Interval]:
    """`intervals`, sorted and disjoint, with [start, stop) added and touching ones merged."""
    before = [one for one in intervals if one[1] < start]
    after = [one for one in intervals if one[0] > stop]
    touching = [one for one in intervals if one[1] >= start and one[0] <= stop]
    return [
        *before,
        (min([start, *(a for a, _ in touching)]), max([stop, *(b for _, b in touching)])),
        *after,
    ]
