"""Cells, less what the store already holds, as gaps and then as units."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, overload

from orchestrator.intervals import Interval, subtract
from orchestrator.plan.cells import AttackCells, Cell, VictimCells, count, short_hash
from workers.defences import gradients
from workers.unit import AttackSpec, Evaluation, Preparation, Training, Transfer, VictimSpec

_IMAGES = 50_000  # of a dataset that is trained on as a whole


class Gap(NamedTuple):
    """Examples that are missing for the same cells of one victim and one attack."""

    victim: VictimSpec
    attack: AttackSpec
    cells: tuple[tuple[str, float], ...]  # (cell id, epsilon), ascending in epsilon
    start: int
    stop: int
    attacked: tuple[int, ...] | None = None  # positions, ascending; None: all, as of `Evaluation`

    @property
    def kind(self) -> str:
        """What `Estimate` calls such work."""
        return self.attack.attack_id

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


class TransferGap(NamedTuple):
    """Examples on which images of one attack on one victim have not been tried on others yet."""

    gap: Gap  # of the victim and attack that images are made with; its cells are those of all the others
    into: Mapping[str, tuple[VictimSpec, AttackSpec]]  # by cell id: whose it is

    @property
    def cells(self) -> tuple[tuple[str, float], ...]:
        return self.gap.cells

    @property
    def start(self) -> int:
        return self.gap.start

    @property
    def stop(self) -> int:
        return self.gap.stop

    @property
    def kind(self) -> str:
        return transfer_kind(self.gap.attack)

    @property
    def work(self) -> int:
        return self.gap.work

    @property
    def victims(self) -> set[str]:
        """All that have to be there: by id."""
        others = (self.into[cell_id][0].victim_id for cell_id, _ in self.cells)
        return {self.gap.victim.victim_id, *others}

    def count(self, slice_size: int) -> int:
        """How many units it makes."""
        return self.gap.count(slice_size)

    def unit(self, index: int, slice_size: int, keep: int) -> Transfer:
        """Cut as the units of the attack itself are."""
        whole = self.gap.unit(index, slice_size, keep)
        into: dict[tuple[str, str], list[tuple[str, float]]] = {}
        for cell in self.cells:
            victim, attack = self.into[cell[0]]
            into.setdefault((victim.victim_id, attack.attack_id), []).append(cell)
        parts = []
        for cells in into.values():
            victim, attack = self.into[cells[0][0]]
            part = Gap(victim, attack, tuple(cells), whole.start, whole.stop)
            (unit,) = (part.unit(i, slice_size, 0) for i in range(part.count(slice_size)))
            parts.append(unit)
        unit_id = f"{whole.unit_id}.transfer"
        return Transfer(unit_id, whole.victim, whole.attack, tuple(parts), whole.start, whole.stop)


AnyGap = Gap | TransferGap


class Units(Sequence[Evaluation | Transfer]):
    """The units of some gaps, in order: each made when it is asked for, none kept."""

    def __init__(self, gaps: Sequence[AnyGap], slice_size: int, keep: int) -> None:
        self._gaps = gaps
        self._slice_size = slice_size
        self._keep = keep
        self._ends = list(accumulate(gap.count(slice_size) for gap in gaps))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Evaluation | Transfer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Evaluation | Transfer]: ...

    def __getitem__(self, index: int | slice) -> Evaluation | Transfer | list[Evaluation | Transfer]:
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[one] for one in place]
        gap = bisect_right(self._ends, place)
        before = self._ends[gap - 1] if gap else 0
        return self._gaps[gap].unit(place - before, self._slice_size, self._keep)


class _Left:
    """What some gaps come to."""

    gaps: Sequence[AnyGap]

    def count(self, slice_size: int) -> int:
        """How many units they make."""
        return sum(gap.count(slice_size) for gap in self.gaps)

    @property
    def work(self) -> Counter[str]:
        """Examples × cells that are missing, by what `Estimate` calls it."""
        work: Counter[str] = Counter()
        for gap in self.gaps:
            work[gap.kind] += gap.work
        return work


@dataclass
class VictimPlan(_Left):
    """What is left to do for one victim."""

    victim: VictimSpec
    gaps: list[Gap] = field(default_factory=list)

    @property
    def training(self) -> Training:
        return Training(f"{self.victim.victim_id}/train", self.victim)

    @property
    def effort(self) -> float:
        """What training its network takes beside that of others: images × epochs × gradients a step.

        How large the network and its images are is not known here; nor how many a whole dataset has.
        """
        recipe = self.victim.recipe
        if recipe is None:
            return 0.0
        head = recipe.head_epochs if self.victim.preparation == "fine-tune" else 0
        return float((recipe.examples or _IMAGES) * (recipe.epochs + head) * gradients(self.victim.defence))


@dataclass
class SourcePlan(_Left):
    """What is left to try on others of the images that are made against one victim."""

    victim: VictimSpec
    gaps: list[TransferGap] = field(default_factory=list)

    @property
    def work_id(self) -> str:
        """What the scheduler calls it, beside the victim's own work."""
        return f"{self.victim.victim_id}/transfer"

    @property
    def needed(self) -> frozenset[str]:
        """The victims that have to be there first, by id."""
        return frozenset().union(*(gap.victims for gap in self.gaps))


def transfer_kind(attack: AttackSpec) -> str:
    """What work of transfers of an attack is counted under."""
    return f"{attack.attack_id}/transfer"


@dataclass
class Plan:
    """What a run would do. Units are generated from it one at a time, never listed."""

    victims: list[VictimCells]  # the whole grid
    selected: list[VictimCells]  # what of it is to be done now: all, or what --only asks for
    examples: Mapping[str, int]  # wanted, by dataset name: the grid's, capped at the test split
    todo: list[VictimPlan]  # the victims with something left to do, or that a transfer needs
    sources: list[SourcePlan]  # those whose images have others left to be tried on
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
    def _parts(self) -> list[VictimPlan | SourcePlan]:
        return [*self.todo, *self.sources]

    @property
    def unit_count(self) -> int:
        return sum(each.count(self.slice_size) for each in self._parts)

    @property
    def work(self) -> Counter[str]:
        """Examples × epsilons that are missing, by the attack's id, or as a transfer's are called."""
        return sum((each.work for each in self._parts), Counter())

    @cached_property
    def missing(self) -> frozenset[str]:
        """The cells that lack something which is to be done now, by id."""
        gaps: list[AnyGap] = [gap for each in self._parts for gap in each.gaps]
        return frozenset(cell_id for gap in gaps for cell_id, _ in gap.cells)

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

    def units(self, victim: VictimPlan | SourcePlan) -> Units:
        """The units of one victim, but for its training."""
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
    plan = Plan(list(victims), chosen, examples, [], [], slice_size, keep, cell_count=count(chosen))
    tried: dict[str, list[_Tried]] = {}  # by source
    plans: list[VictimPlan] = []
    for victim, runs in chosen:
        todo = VictimPlan(victim)
        plans.append(todo)
        for run in runs:
            source = run.attack.made_against
            lost = victim.victim_id in failed_victims or (source and source.victim_id in failed_victims)
            missing = _missing(plan, victim, run, coverage, failed or {}, bool(lost))
            if source:
                tried.setdefault(source.victim_id, []).append((victim, run.attack, missing))
                continue
            alike: dict[tuple[int, ...] | None, list[tuple[Cell, list[Interval]]]] = {}
            for cell, left in missing:
                alike.setdefault((attacked or {}).get(cell.cell_id), []).append((cell, left))
            for positions, group in alike.items():
                todo.gaps.extend(_gaps(victim, run.attack, group, positions))
    plan.sources = list(_sources(victims, tried))
    needed = {victim_id for source in plan.sources for victim_id in source.needed}
    plan.todo = [each for each in plans if each.gaps or each.victim.victim_id in needed]
    return plan


_Tried = tuple[VictimSpec, AttackSpec, list[tuple[Cell, list[Interval]]]]
"""A victim that images are tried on, the attack with its source, and what its cells lack."""


def _sources(victims: Sequence[VictimCells], tried: Mapping[str, Sequence[_Tried]]) -> Iterator[SourcePlan]:
    """What is missing, by the victim and the attack that its images are made with."""
    for source, runs in victims:
        plan = SourcePlan(source)
        targets = tried.get(source.victim_id, ())
        for run in runs if targets else ():
            if run.attack.made_against is not None:
                continue
            here = [
                (victim, attack, missing)
                for victim, attack, missing in targets
                if attack.made_by == run.attack.attack_id
            ]
            into = {cell.cell_id: (victim, attack) for victim, attack, missing in here for cell, _ in missing}
            every = [one for _, _, missing in here for one in missing]
            plan.gaps += [TransferGap(gap, into) for gap in _gaps(source, run.attack, every, None)]
        if plan.gaps:
            yield plan


def _missing(
    plan: Plan,
    victim: VictimSpec,
    run: AttackCells,
    coverage: Mapping[str, Sequence[Interval]],
    failed: Mapping[str, Sequence[Interval]],
    lost: bool,
) -> list[tuple[Cell, list[Interval]]]:
    """The cells of one attack on one victim that lack something, counted in the plan; `lost`: they cannot be
    had, as a victim has failed."""
    wanted = plan.wanted(victim)
    missing = []
    for cell in run.cells:
        left = subtract(wanted, coverage.get(cell.cell_id, ()))
        todo = [] if lost else subtract(left, failed.get(cell.cell_id, ()))
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
