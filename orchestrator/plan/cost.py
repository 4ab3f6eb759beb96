"""What a plan will take on a device, from what was timed there; what has no basis is counted, not guessed.

Seconds are those of devices: of one CPU, or of one GPU, whatever share of it a worker had. They are the sums
of what workers measured: waiting for work, starting up and a driver's own time are not in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from orchestrator.plan.units import AnyGap, Gap, Plan, TransferGap
from workers.unit import DatasetSpec, DefenceSpec, ModelSpec, VictimSpec, recorded

PERCEPTIBLE = 64
"""Positions of the evaluation order whose images' visibility is measured, however many are attacked."""

ALIKE = 2.0
"""Units of so many times as many examples or epsilons cost another sum for each of them: they fill batches
otherwise, and share steps otherwise."""


@dataclass(slots=True)
class Timed:
    """What units of one attack took on one victim, or on victims that are alike."""

    seconds: float = 0.0  # of attacking and measuring
    work: int = 0  # examples × epsilons
    visible: float = 0.0  # seconds of measuring visibility
    near: int = 0  # examples × epsilons that it was measured on
    setup: float = 0.0  # seconds to load the victim and to trace its functions
    units: int = 0
    examples: int = 0  # of all units together
    cells: int = 0
    victims: set[str] = field(default_factory=set)

    def add(
        self,
        victim_id: str,
        *,
        seconds: float,
        visible: float,
        setup: float,
        start: int,
        stop: int,
        cells: int,
    ) -> None:
        """One more unit, of positions [start, stop) in so many cells."""
        self.seconds += seconds
        self.work += (stop - start) * cells
        self.visible += visible
        self.near += _near(start, stop) * cells
        self.setup += setup
        self.units += 1
        self.examples += stop - start
        self.cells += cells
        self.victims.add(victim_id)

    def takes(self, start: int, stop: int, cells: int) -> float:
        """Seconds of positions [start, stop) in so many cells, on one victim."""
        visible = self.visible / self.near * _near(start, stop) if self.near else 0.0
        each = self.seconds / self.work * (stop - start) + visible
        return each * cells + self.setup / len(self.victims)

    def like(self, examples: int, cells: int) -> bool:
        """Whether units of so many examples and cells are like those that were timed."""
        pairs = ((examples, self.examples / self.units), (cells, self.cells / self.units))
        return all(1 / ALIKE <= planned / timed <= ALIKE for planned, timed in pairs)


@dataclass(slots=True)
class TimedTraining:
    """What trainings of one kind took."""

    recipe: Mapping[str, Any]
    train_size: int  # of the dataset's training split
    epochs: int
    seconds: float

    def takes(self, victim: VictimSpec) -> float:
        """Seconds of another, as images × epochs have it; of the same recipe, what it took."""
        recipe = victim.recipe
        assert recipe is not None
        if asdict(recipe) == dict(self.recipe):
            return self.seconds
        head = recipe.head_epochs if victim.preparation == "fine-tune" else 0
        then, now = (
            min(examples or self.train_size, self.train_size)
            for examples in (self.recipe.get("examples"), recipe.examples)
        )
        return self.seconds / self.epochs / then * (recipe.epochs + head) * now


@dataclass(slots=True)
class Basis:
    """All that was timed on one device."""

    exact: dict[tuple[str, str], Timed] = field(default_factory=dict)  # by victim and attack, by id
    alike: dict[tuple[str, str], Timed] = field(default_factory=dict)  # by `kind_of` victim, and attack id
    trainings: dict[str, TimedTraining] = field(default_factory=dict)  # by `training_kind`


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan takes on one device, as far as that is known there."""

    device: str  # "AMD EPYC (CPU)"
    hours: float  # of one such device, for the cells and trainings that have a basis
    exact: int  # cells with one in the same victim under the same attack
    alike: int  # cells with one in the same network, dataset and defence, trained otherwise
    rough: int  # cells of these two whose units were timed at another size
    unknown: int  # cells without any
    trainings: int  # networks whose training has a basis
    cached: int  # networks that need none, as they are in the cache
    unknown_trainings: int


def kind_of(model: Mapping[str, Any], dataset: Mapping[str, Any], defence: Mapping[str, Any]) -> str:
    """What victims have in common whose units take alike, all but weights; parts as pins have them."""
    network = {key: value for key, value in model.items() if key not in ("weights", "shown")}
    images = {key: dataset[key] for key in ("name", "path", "size") if key in dataset}
    return json.dumps([network, images, _defence(defence)], sort_keys=True, default=list)


def training_kind(
    model: Mapping[str, Any],
    dataset: Mapping[str, Any],
    defence: Mapping[str, Any],
    recipe: Mapping[str, Any],
    *,
    pretrained: bool,
) -> str:
    """What trainings have in common that take alike, by image and epoch."""
    same = ("batch_size", "optimizer", "augmentation", *(("fine_tune",) if pretrained else ()))
    own = {key: recipe.get(key) for key in same}
    in_training = [part for part in defence.get("parts", [defence]) if part.get("in_training")]
    return kind_of(model, dataset, {"parts": in_training}) + json.dumps([own, pretrained], sort_keys=True)


def estimate(
    plan: Plan, bases: Mapping[str, Basis], *, cached: Callable[[str], bool] = lambda victim_id: False
) -> list[Cost]:
    """The cost of a plan on each device on which anything was timed that it needs, the best known first.

    `cached`: whether the weights of a victim without a defence at inference, by id, need no training.
    """
    networks = {victim.victim.network.victim_id: victim.victim.network for victim in plan.todo}
    trained = [one for one in networks.values() if one.recipe is not None]
    untrained = [one for one in trained if not cached(one.victim_id)]
    costs = []
    for device, basis in bases.items():
        seconds, cells = _cells(plan, basis)
        times = [basis.trainings.get(_training_kind(victim)) for victim in untrained]
        for victim, time in zip(untrained, times, strict=True):
            seconds += time.takes(victim) if time else 0.0
        known = [found for found in cells.values() if found != "unknown"]
        if not known and not any(times):
            continue
        costs.append(
            Cost(
                device=device,
                hours=seconds / 3600,
                exact=sum(found.startswith("exact") for found in known),
                alike=sum(found.startswith("alike") for found in known),
                rough=sum(found.endswith("rough") for found in known),
                unknown=len(cells) - len(known),
                trainings=sum(time is not None for time in times),
                cached=len(trained) - len(untrained),
                unknown_trainings=times.count(None),
            )
        )
    return sorted(costs, key=lambda cost: (cost.unknown, cost.unknown_trainings, cost.device))


def _cells(plan: Plan, basis: Basis) -> tuple[float, dict[str, str]]:
    """Device seconds of all cells with a basis; and for each, by id, what the worst of it is."""
    order = ("exact", "exact rough", "alike", "alike rough", "unknown")
    seconds, found = 0.0, dict.fromkeys(plan.missing, "exact")
    gaps: list[AnyGap] = [gap for each in (*plan.todo, *plan.sources) for gap in each.gaps]
    for gap in chain.from_iterable(map(_by_victim, gaps)):
        time, how = basis.exact.get((gap.victim.victim_id, gap.attack.attack_id)), "exact"
        if time is None:
            time, how = basis.alike.get((kind_of_victim(gap.victim), gap.attack.attack_id)), "alike"
        if time is None:
            how = "unknown"
        else:
            examples = gap.work // len(gap.cells)
            seconds += time.takes(gap.start, gap.start + examples, len(gap.cells))
            if not time.like(min(plan.slice_size, examples), len(gap.cells)):
                how += " rough"
        for cell_id, _ in gap.cells:
            found[cell_id] = max(found[cell_id], how, key=order.index)
    return seconds, found


def _by_victim(gap: AnyGap) -> list[Gap]:
    """A gap as shards have it: a transfer's by the victims that images are tried on."""
    if not isinstance(gap, TransferGap):
        return [gap]
    parts: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for cell in gap.cells:
        victim, attack = gap.into[cell[0]]
        parts.setdefault((victim.victim_id, attack.attack_id), []).append(cell)
    return [Gap(*gap.into[cells[0][0]], tuple(cells), gap.start, gap.stop) for cells in parts.values()]


def kind_of_victim(victim: VictimSpec) -> str:
    """`kind_of` a victim that is planned."""
    return kind_of(*_parts(victim.model, victim.dataset, victim.defence))


def _training_kind(victim: VictimSpec) -> str:
    recipe = asdict(victim.recipe) if victim.recipe else {}
    parts = _parts(victim.model, victim.dataset, victim.defence)
    return training_kind(*parts, recipe, pretrained=victim.preparation == "fine-tune")


def _parts(
    model: ModelSpec, dataset: DatasetSpec, defence: DefenceSpec
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return recorded(model), recorded(dataset), recorded(defence)


def _defence(defence: Mapping[str, Any]) -> list[Any]:
    """Its parts, each with what tells it; none for no defence."""
    parts = defence.get("parts") or [defence]
    told = ("name", "options", "factory", "source", "version")
    return [
        {key: part[key] for key in told if part.get(key)}
        for part in parts
        if part.get("name") not in (None, "none")
    ]


def _near(start: int, stop: int) -> int:
    return max(0, min(stop, PERCEPTIBLE) - start)
