"""A cluster of 1,000 workers in virtual time: the real scheduler, and what can happen to a sweep.

Makespan is held against what no scheduler could better: all work, shared out evenly over the workers that
were there at each moment and as fast as each of them is; or the longest chain of a training and one unit.
"""

from __future__ import annotations

import heapq
import random
import statistics
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.reading import Reading
from orchestrator.run.estimate import Estimate
from orchestrator.run.scheduler import Scheduler
from orchestrator.run.stragglers import stragglers
from orchestrator.run.work import VictimWork
from workers.recipe import Recipe
from workers.unit import (
    AttackSpec,
    DatasetSpec,
    Evaluation,
    ModelSpec,
    Training,
    Transfer,
    Unit,
    VictimSpec,
)

UNIT_SECONDS = {
    "fgsm": (0.14, 0.1, 0.08, 0.07, 0.08, 0.07, 0.07, 0.21, 0.5, 0.16),
    "bim": (2.77, 0.52, 0.35, 0.74, 2.31, 0.92, 0.24, 0.32, 0.26, 0.25),
    "pgd": (14.93, 3.17, 5.17, 6.35, 0.95, 0.73, 1.05, 0.85, 1.6, 2.47),
    "apgd": (48.21, 25.66, 15.54, 10.69, 23.56, 15.11, 14.36, 28.69, 14.9, 41.24),
    "deepfool": (5.84, 17.33, 19.74, 69.03, 33.7, 59.35, 4.76, 66.32, 32.93, 25.44),
    "square": (26.81, 25.68, 9.09, 8.16, 17.59, 12.41, 17.65, 24.1, 33.6, 34.58),
}
"""Seconds of units of 50 examples × 3 epsilons, from their shards' footers: `small_cnn` on MNIST, `square` on
digits; two workers on two cores of an AMD EPYC that other jobs kept busy, hence the long tails."""

TRAINING_SECONDS = (2.0, 8.8, 12.5)
"""Of the three networks that were trained in that sweep: two epochs of 1,167 to 3,600 images."""

LOAD_SECONDS = 2.0
"""To read a victim and trace its functions, where a worker turns to one that it does not hold."""

HELD = 8
"""Victims that a worker holds, those used last."""

BACK_SECONDS = 300.0
"""After which a machine that was taken away is there again."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster and its sweep; rates of what goes wrong are chosen, and high for a cluster in good order."""

    machines: int = 125
    workers: int = 8  # on each
    victims: int = 1000
    units: int = 400  # of each victim, shared out evenly over the attacks
    scale: float = 4.0  # of all measured seconds: units of 200 examples
    training: float = 25.0  # times the measured seconds: 50 epochs
    slow: float = 0.02  # of machines, which take `slowness` times as long
    slowness: float = 4.0
    failing: float = 0.002  # of units, half-way
    away: float = 12 * 3600.0  # seconds between the losses of one machine
    seed: int = 0


@dataclass(kw_only=True)
class Outcome:
    """What came of a simulated sweep. Seconds are virtual, but for those of decisions."""

    makespan: float = 0.0
    ideal: float = 0.0
    units: int = 0
    copies: int = 0
    won: int = 0  # copies that were there first
    wasted: float = 0.0  # seconds of runs that another was faster than
    failed: int = 0
    lost: int = 0  # units, with their machine
    loads: int = 0
    decisions: list[float] = field(default_factory=list)  # CPU seconds of each `next_unit`

    @property
    def ratio(self) -> float:
        return self.makespan / self.ideal


def measure(
    *, victims: int = 1000, units: int = 400, large: int = 10_000, machines: int = 125
) -> list[Reading]:
    """A night of `victims` × `units`, with and without copies; `large` victims, a tenth of the units each."""
    cluster = Cluster(victims=victims, units=units, machines=machines)
    many = Cluster(victims=large, units=max(1, units // 10), machines=machines)
    workers = machines * cluster.workers
    readings = []
    for each, copies in ((cluster, True), (cluster, False), (many, True)):
        outcome = simulate(each, copies=copies)
        what = f"{workers:,} workers, {each.victims:,} victims × {each.units}"
        if not copies:
            what += ", nothing copied"
        decisions = sorted(outcome.decisions)
        readings += [
            Reading(what=f"{what}: makespan / ideal", value=outcome.ratio, at_most=1.05 if copies else None),
            Reading(what=f"{what}: makespan", value=outcome.makespan / 3600, unit="h"),
            Reading(what=f"{what}: units lost with their machines", value=outcome.lost),
            Reading(
                what=f"{what}: a decision, mean",
                value=1000 * statistics.mean(decisions),
                unit="CPU ms",
                at_most=1,
            ),
            Reading(
                what=f"{what}: 999 of 1,000 decisions",
                value=1000 * decisions[int(0.999 * len(decisions))],
                unit="CPU ms",
                at_most=1,
            ),
        ]
        if copies:
            readings += [
                Reading(what=f"{what}: copies", value=outcome.copies),
                Reading(what=f"{what}: copies that were first", value=outcome.won),
                Reading(what=f"{what}: work for nothing", value=outcome.wasted / 3600, unit="worker h"),
            ]
    return readings


def simulate(cluster: Cluster, *, copies: bool = True) -> Outcome:
    """Run a sweep to its end; RuntimeError unless every unit has ended once."""
    return _Simulation(cluster, copies=copies).run()


@dataclass(slots=True)
class _Worker:
    machine: int
    slowness: float
    held: OrderedDict[str, None] = field(default_factory=OrderedDict)
    run: int = 0  # which of its runs is under way: what ends another one is out of date
    unit: Unit | None = None
    begun: float = 0.0


class _Simulation:
    def __init__(self, cluster: Cluster, *, copies: bool) -> None:
        self.cluster = cluster
        self.copies = copies
        self.random = random.Random(cluster.seed)
        self.size = [self.random.lognormvariate(0, 0.5) for _ in range(cluster.victims)]
        self.attacks = [AttackSpec(attack_id=name, name=name, norm="linf") for name in UNIT_SECONDS]
        self.estimate = Estimate()
        self.scheduler = Scheduler(map(self._work, range(cluster.victims)))
        self.events: list[tuple[float, int, str, int]] = []
        self.sequence = 0
        self.now = 0.0
        self.workers: dict[str, _Worker] = {}
        self.idle: dict[str, None] = {}
        self.running: dict[str, tuple[dict[str, int], float]] = {}
        self.outcome = Outcome(units=self.scheduler.total)
        self.slow = [self.random.random() < cluster.slow for _ in range(cluster.machines)]
        self.there: list[list[float]] = [[] for _ in range(cluster.machines)]  # when each came, went, came …

    # -- the sweep

    def _work(self, number: int) -> VictimWork:
        victim = VictimSpec(
            victim_id=f"v{number}",
            model=ModelSpec(name="small_cnn"),
            dataset=DatasetSpec(name="mnist"),
            recipe=Recipe(),
            seed=number,
        )
        units = self.cluster.units
        effort = self.size[number] * TRAINING_SECONDS[number % 3]
        return VictimWork(
            victim.victim_id, Training(f"v{number}/train", victim), self._units(victim), units, effort=effort
        )

    def _units(self, victim: VictimSpec) -> Iterator[Evaluation | Transfer]:
        for index in range(self.cluster.units):
            attack = self.attacks[index * len(self.attacks) // self.cluster.units]
            unit_id = f"{victim.victim_id}/{attack.attack_id}.{index}"
            yield Evaluation(unit_id, victim, attack, (("cell", 0.1),), start=0, stop=200)

    def _seconds(self, unit: Unit) -> float:
        """Of a run on a machine that is not slow; each run of a unit draws another of the measured times."""
        size = self.size[unit.victim.seed]
        if isinstance(unit, Training):
            times, scale = TRAINING_SECONDS, self.cluster.training
            return size * scale * times[unit.victim.seed % 3]
        measured = UNIT_SECONDS[unit.attack.attack_id]
        return size * self.cluster.scale * measured[self.random.randrange(len(measured))]

    def _ideal(self) -> float:
        """When all could have been done, had it been divided at will; at least the longest chain."""
        cluster = self.cluster
        mean = {name: statistics.mean(times) for name, times in UNIT_SECONDS.items()}
        place = [index * len(self.attacks) // cluster.units for index in range(cluster.units)]
        units = cluster.scale * sum(mean[self.attacks[each].attack_id] for each in place)
        trainings = [
            size * cluster.training * TRAINING_SECONDS[number % 3] for number, size in enumerate(self.size)
        ]
        left = sum(self.size) * units + sum(trainings)
        chain = max(
            training + size * cluster.scale * min(mean.values())
            for training, size in zip(trainings, self.size, strict=True)
        )
        changes = []  # of all workers' speed together
        for machine, times in enumerate(self.there):
            speed = cluster.workers / (cluster.slowness if self.slow[machine] else 1.0)
            changes += [(at, speed if i % 2 == 0 else -speed) for i, at in enumerate(times)]
        changes.sort()
        at, speed = 0.0, 0.0
        for then, change in [*changes, (float("inf"), 0.0)]:
            if speed and at + left / speed <= then:
                return max(at + left / speed, chain)
            left -= speed * (then - at)
            at, speed = then, speed + change
        raise RuntimeError("the machines never come to do it all")

    # -- time

    def _at(self, seconds: float, name: str, number: int) -> None:
        self.sequence += 1
        heapq.heappush(self.events, (self.now + seconds, self.sequence, name, number))

    def run(self) -> Outcome:
        for machine in range(self.cluster.machines):
            self._at(0.0, "", machine)
        while not self.scheduler.finished:
            self.now, _, worker, number = heapq.heappop(self.events)
            self._happen(worker, number)
            while self.events and self.events[0][0] == self.now:  # as a driver hears of several at once
                _, _, worker, number = heapq.heappop(self.events)
                self._happen(worker, number)
            self._hand_out()
        scheduler, outcome = self.scheduler, self.outcome
        if scheduler.done + scheduler.failed != scheduler.total or scheduler.waiting:
            raise RuntimeError(f"{scheduler.done} done and {scheduler.failed} failed of {scheduler.total}")
        outcome.makespan, outcome.failed = self.now, scheduler.failed
        outcome.ideal = self._ideal()
        return outcome

    def _happen(self, worker: str, number: int) -> None:
        """A worker's run ends, or the machine of that number comes or goes."""
        if worker:
            self._end(worker, number)
        elif len(self.there[number]) % 2:
            self._leave(number)
        else:
            self._come(number)

    def _come(self, machine: int) -> None:
        self.there[machine].append(self.now)
        slowness = self.cluster.slowness if self.slow[machine] else 1.0
        for i in range(self.cluster.workers):
            name = f"{machine}.{len(self.there[machine])}.{i}"
            self.workers[name] = _Worker(machine, slowness)
            self.scheduler.join(name)
            self.idle[name] = None
        self._at(self.random.expovariate(1 / self.cluster.away), "", machine)

    def _leave(self, machine: int) -> None:
        """With all its workers at once, and what they ran."""
        self.there[machine].append(self.now)
        for name in [name for name, worker in self.workers.items() if worker.machine == machine]:
            del self.workers[name]
            self.idle.pop(name, None)
            self.running.pop(name, None)
            lost = self.scheduler.lose(name, charged=False)
            self.outcome.lost += lost is not None
            if lost and lost.also:
                self.running[lost.also] = _work(lost.unit), self.workers[lost.also].begun
        self._at(BACK_SECONDS, "", machine)

    def _end(self, name: str, run: int) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.run != run:
            return
        self.running.pop(name)
        unit = worker.unit
        assert unit is not None
        chance = zlib.crc32(f"{unit.unit_id}{run}{name}".encode()) / 2**32
        outcome = self.scheduler.finish(name, ok=chance >= self.cluster.failing)
        self.idle[name] = None
        if outcome.state == "copy":
            self.outcome.wasted += self.now - worker.begun
        elif outcome.state == "done":
            for kind, amount in _work(unit).items():
                self.estimate.done(kind, amount, self.now - worker.begun)
        if outcome.also:
            self.outcome.won += outcome.state == "done" and self.workers[outcome.also].begun < worker.begun
            left = {} if outcome.state == "done" else _work(unit)
            self.running[outcome.also] = left, self.workers[outcome.also].begun

    def _hand_out(self) -> None:
        for name in list(self.idle):
            begun = time.thread_time()
            unit = self.scheduler.next_unit(name)
            self.outcome.decisions.append(time.thread_time() - begun)
            if unit is not None:
                self._begin(name, unit, _work(unit))
        if not self.idle or not self.copies:
            return
        late = stragglers(self.running, self.now, self.estimate.expected)
        for name, of in zip(list(self.idle), late, strict=False):
            unit = self.scheduler.copy(name, of)
            if unit is not None:
                self.outcome.copies += 1
                self._begin(name, unit, {})

    def _begin(self, name: str, unit: Unit, work: dict[str, int]) -> None:
        worker = self.workers[name]
        del self.idle[name]
        victim_id = unit.victim.victim_id
        load = 0.0
        if victim_id not in worker.held and not isinstance(unit, Training):
            load = LOAD_SECONDS
            self.outcome.loads += 1
        worker.held[victim_id] = None
        worker.held.move_to_end(victim_id)
        if len(worker.held) > HELD:
            worker.held.popitem(last=False)
        worker.unit, worker.begun = unit, self.now
        worker.run += 1
        self.running[name] = work, self.now
        self._at(load + worker.slowness * self._seconds(unit), name, worker.run)


def _work(unit: Unit) -> dict[str, int]:
    return {"train": 1} if isinstance(unit, Training) else {unit.attack.attack_id: unit.work}
