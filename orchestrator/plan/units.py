"""Cells, less what the store already holds, as gaps and then as units."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple, overload

from orchestrator.intervals import Interval, subtract
from orchestrator.plan.cells import AttackCells, Cell, VictimCells, count, short_hash
from workers.defences import gradients
from workers.unit import AttackSpec, Evaluation, Preparation, Training, VictimSpec


class Gap(NamedTuple):
    """Examples that are missing for the same cells of one victim and one attack."""

    victim: VictimSpec
    attack: AttackSpec
    cells: tuple[tuple[str, float], ...]  # (cell id, epsilon), ascending in epsilon
    start: int
    stop: int
    attacked: tuple[int, ...] | None = None  # positions, ascending; None: all, as of `Evaluation`

    @property
    def work(self) -> int:
        """Examples to attack × cells."""
        inside = self._attacked(self.start, self.stop)
        return (self.stop - self.start if inside is None else len(inside)) * len(self.cells)

    def count(self, slice_size: int) -> int:
        """How many units it makes."""
        return -(-self.stop // slice_size) - self.start // slice_size

    def unit(self, index: int, slice_size: int, keep: int) -> Evaluation:
        """Cut at multiples of the slice, so that a resumed sweep cuts as an uninterrupted one does."""
        cells = short_hash(",".join(cell_id for cell_id, _ in self.cells), 8)
        begin = (self.start // slice_size + index) * slice_size
        start, stop = max(self.start, begin), min(self.stop, begin + slice_size)
        unit_id = f"{self.victim.victim_id}/{self.attack.attack_id}.{start}-{stop}.{cells}"
        attacked = self._attacked(start, stop)
        return Evaluation(unit_id, self.victim, self.attack, self.cells, start, stop, keep, attacked)

    def _attacked(self, start: int, stop: int) -> tuple[int, ...] | None:
        if self.attacked is None:
            return None
        return self.attacked[bisect_left(self.attacked, start) : bisect_left(self.attacked, stop)]


class Units(Sequence[Evaluation]):
    """The units of some gaps, in order: each made when it is asked for, none kept."""

    def __init__(self, gaps: Sequence[Gap], slice_size: int, keep: int) -> None:
        self._gaps = gaps
        self._slice_size = slice_size
        self._keep = keep
        self._ends = list(accumulate(gap.count(slice_size) for gap in gaps))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Evaluation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Evaluation]: ...

    def __getitem__(self, index: int | slice) -> Evaluation | list[Evaluation]:
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[one] for one in place]
        gap = bisect_right(self._ends, place)
        before = self._ends[gap - 1] if gap else 0
        return self._gaps[gap].unit(place - before, self._slice_size, self._keep)


@dataclass
class VictimPlan:
    """What is left to do for one victim."""

    victim: VictimSpec
    gaps: list[Gap] = field(default_factory=list)

    @property
    def training(self) -> Training:
        return Training(f"{self.victim.victim_id}/train", self.victim)

    def count(self, slice_size: int) -> int:
        return sum(gap.count(slice_size) for gap in self.gaps)

    @property
    def work(self) -> Counter[str]:
        """Examples × epsilons that are missing, by the attack's id."""
        work: Counter[str] = Counter()
        for gap in self.gaps:
            work[gap.attack.attack_id] += gap.work
        return work

    def missing(self, attack: AttackSpec) -> int:
        """How many cells of an attack lack something."""
        return len({cell_id for gap in self.gaps if gap.attack is attack for cell_id, _ in gap.cells})


@dataclass
class Plan:
    """What a run would do. Units are generated from it one at a time, never listed."""

    victims: list[VictimCells]  # the whole grid
    selected: list[VictimCells]  # what of it is to be done now: all, or what --only asks for
    examples: Mapping[str, int]  # wanted, by dataset name: the grid's, capped at the test split
    todo: list[VictimPlan]  # the victims with something left to do
    slice_size: int
    keep: int
    cell_count: int = 0  # selected ones, like the two below
    done_cells: int = 0
    failed_cells: int = 0  # failed for good in an earlier run, and not to be tried again now

    @property
    def grid_cell_count(self) -> int:
        """Of the whole grid, selected or not."""
        return count(self.victims)

    @property
    def open_cells(self) -> int:
        return self.cell_count - self.done_cells - self.failed_cells

    @property
    def unit_count(self) -> int:
        return sum(victim.count(self.slice_size) for victim in self.todo)

    @property
    def work(self) -> Counter[str]:
        """Examples × epsilons that are missing, by the attack's id."""
        return sum((victim.work for victim in self.todo), Counter())

    @property
    def preparations(self) -> Counter[Preparation]:
        """How many networks of victims with something left to do are to be trained, fine-tuned or loaded.

        Victims that differ in their defence at inference share theirs.
        """
        networks = {victim.victim.network.victim_id: victim.victim for victim in self.todo}
        return Counter(victim.preparation for victim in networks.values())

    @property
    def training_work(self) -> Counter[Preparation]:
        """The same as work: a network counts as often as a step of its training takes a gradient."""
        work: Counter[Preparation] = Counter()
        for one in {victim.victim.network.victim_id: victim.victim for victim in self.todo}.values():
            work[one.preparation] += gradients(one.defence)
        return work

    @property
    def attacked_trainings(self) -> dict[str, int]:
        """By label, the defences in training that take more than one gradient a step, and how many."""
        networks = (victim.victim.defence.network for victim in self.todo)
        return {one.label: count for one in networks if (count := gradients(one)) > 1}

    def units(self, victim: VictimPlan) -> Units:
        """The evaluation units of one victim."""
        return Units(victim.gaps, self.slice_size, self.keep)

    def wanted(self, victim: VictimSpec) -> list[Interval]:
        """The positions that each cell of a victim is to cover."""
        return [(0, self.examples[victim.dataset.name])]


def make_plan(
    victims: Sequence[VictimCells],
    *,
    examples: Mapping[str, int],
    slice_size: int,
    keep: int,
    coverage: Mapping[str, Sequence[Interval]],
    failed: Mapping[str, Sequence[Interval]] | None = None,
    failed_victims: Collection[str] = (),
    selected: Sequence[VictimCells] | None = None,
    attacked: Mapping[str, tuple[int, ...]] | None = None,
) -> Plan:
    """Plan what is missing of the selected cells; by default all are.

    `coverage` and `failed` give, by cell id, sorted disjoint intervals that accepted shards cover and that
    failed for good; what failed is left out unless it is covered after all. `attacked` has the positions to
    attack of the cells in which it is not all of them; cells that differ in that are in no unit together.
    """
    chosen = list(victims if selected is None else selected)
    plan = Plan(list(victims), chosen, examples, [], slice_size, keep, cell_count=count(chosen))
    for victim, runs in chosen:
        todo = VictimPlan(victim)
        for run in runs:
            missing = _missing(plan, victim, run, coverage, failed or {}, victim.victim_id in failed_victims)
            alike: dict[tuple[int, ...] | None, list[tuple[Cell, list[Interval]]]] = {}
            for cell, left in missing:
                alike.setdefault((attacked or {}).get(cell.cell_id), []).append((cell, left))
            for positions, group in alike.items():
                todo.gaps.extend(_gaps(victim, run.attack, group, positions))
        if todo.gaps:
            plan.todo.append(todo)
    return plan


def _missing(
    plan: Plan,
    victim: VictimSpec,
    run: AttackCells,
    coverage: Mapping[str, Sequence[Interval]],
    failed: Mapping[str, Sequence[Interval]],
    victim_failed: bool,
) -> list[tuple[Cell, list[Interval]]]:
    """The cells of one attack on one victim that lack something, counted in the plan."""
    wanted = plan.wanted(victim)
    missing = []
    for cell in run.cells:
        left = subtract(wanted, coverage.get(cell.cell_id, ()))
        todo = [] if victim_failed else subtract(left, failed.get(cell.cell_id, ()))
        if not left:
            plan.done_cells += 1
        elif todo != left:
            plan.failed_cells += 1
        if todo:
            missing.append((cell, todo))
    return missing


def _gaps(
    victim: VictimSpec,
    attack: AttackSpec,
    missing: Sequence[tuple[Cell, Sequence[Interval]]],
    attacked: tuple[int, ...] | None,
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
        last = Gap(victim, attack, cells, start, stop, attacked) if cells else None
    if last:
        yield last
