"""The scheduler against a plain model of the truth, through whatever can happen to a sweep."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.run.scheduler import Scheduler
from orchestrator.run.work import Outcome, VictimWork
from tests.support.victims import attack_spec, some_victim
from workers.unit import Evaluation, Training, VictimSpec

FGSM = attack_spec()
NAMES = ["u", "v", "w", "x", "y"]


@dataclass
class Truth:
    """What is known of one unit."""

    unit_id: str
    victim: str
    network: str
    trains: bool
    place: int  # in the order of the plan; a unit that is tried again goes to the back
    state: str = "waiting"
    charged: int = 0
    losses: int = 0
    failed_on: str | None = None
    blamed: bool = False  # one of two that ran it has failed so that it counts


@dataclass
class Model:
    """All units in one list, and every question answered by going through it."""

    units: list[Truth]
    after: dict[str, frozenset[str]]  # the victims whose trainings must have ended before a victim's units
    efforts: dict[str, float]  # of each victim's training
    workers: dict[str, list[str]] = field(
        default_factory=dict
    )  # the victims each live worker held, latest last
    on: dict[str, str | None] = field(default_factory=dict)  # the victim each live worker is on
    weak: set[str] = field(default_factory=set)  # live workers
    runs: dict[str, Truth] = field(default_factory=dict)

    def of(self, victim: str, state: str) -> list[Truth]:
        return [truth for truth in self.units if truth.victim == victim and truth.state == state]

    def count(self, state: str) -> int:
        return sum(truth.state == state for truth in self.units)

    def trained(self, victim: str) -> bool:
        return all(t.state == "done" for t in self.units if t.victim == victim and t.trains)

    def busy(self, network: str) -> bool:
        """Whether a network is being trained that nobody has trained before."""
        states = [t.state for t in self.units if t.trains and t.network == network]
        return "running" in states and "done" not in states

    def held_up(self, victim: str) -> bool:
        return any(
            t.trains and t.state in ("waiting", "running")
            for t in self.units
            if t.victim in self.after[victim]
        )

    def startable(self) -> list[Truth]:
        return [
            t
            for t in self.units
            if t.state == "waiting"
            and not self.held_up(t.victim)
            and (self.trained(t.victim) if not t.trains else not self.busy(t.network))
        ]

    def urgency(self, victim: str, weak: bool) -> tuple[float, float, int]:
        waiting, on = len(self.of(victim, "waiting")), list(self.on.values()).count(victim)
        networks = {t.network for t in self.units if t.victim == victim and t.trains}
        done = any(t.trains and t.state == "done" and t.network in networks for t in self.units)
        effort = 0.0 if done or not networks else self.efforts[victim]
        if weak and not on:
            return (math.inf, -effort, -waiting)
        return (waiting / on if on else math.inf, effort, waiting)

    def allowed(self, worker: str) -> list[Truth]:
        """The units that the policy lets this worker have; empty only when none could start at all."""
        candidates = self.startable()
        if len(self.workers) > 1:
            candidates = [t for t in candidates if t.failed_on != worker] or candidates
        victims = {t.victim for t in candidates}
        held = [victim for victim in self.workers[worker] if victim in victims]
        if held:
            victims = {held[-1]}
        elif victims:
            urgency = {victim: self.urgency(victim, worker in self.weak) for victim in victims}
            victims = {victim for victim in victims if urgency[victim] == max(urgency.values())}
        allowed = []
        for victim in victims:
            of_victim = [t for t in candidates if t.victim == victim]
            fresh = [t for t in of_victim if t.failed_on is None]
            allowed += [min(fresh, key=lambda t: t.place)] if fresh else of_victim
        return allowed


class Sweep(RuleBasedStateMachine):
    """Workers join, work, fail, die and come back in any order; `drain` comes late or never."""

    @initialize(
        victims=st.lists(
            st.tuples(
                st.booleans(),
                st.integers(0, 8),
                st.integers(0, 2),
                st.sets(st.integers(0, 3)),
                st.sampled_from([0.0, 1.0, 2.0]),
            ),
            max_size=5,
        ),
        max_attempts=st.integers(1, 3),
        max_losses=st.integers(0, 2),
        drain_after=st.none() | st.integers(0, 60),
        workers=st.sets(st.sampled_from(NAMES)),
    )
    def start(
        self,
        victims: list[tuple[bool, int, int, set[int], float]],
        max_attempts: int,
        max_losses: int,
        drain_after: int | None,
        workers: set[str],
    ) -> None:
        self.max_attempts, self.max_losses, self.drain_after = max_attempts, max_losses, drain_after
        self.drained = False
        self.steps = 0
        self.generated: set[str] = set()
        units, work = [], []
        after: dict[str, frozenset[str]] = {}
        efforts: dict[str, float] = {}
        for number, (trains, count, shared, earlier, effort) in enumerate(victims):
            name, network = f"victim-{number}", f"network-{shared}"
            spec = replace(some_victim(name), network_id=network)
            training = Training(f"{name}/train", spec) if trains else None
            if training:
                units.append(Truth(training.unit_id, name, network, trains=True, place=-1))
            units += [Truth(f"{name}/{i}", name, network, trains=False, place=i) for i in range(count)]
            after[name] = frozenset(f"victim-{other}" for other in earlier if other < number)
            efforts[name] = effort
            work.append(VictimWork(name, training, self.generate(spec, count), count, after[name], effort))
        self.by_id = {truth.unit_id: truth for truth in units}
        self.model = Model(units, after, efforts)
        self.scheduler = Scheduler(work, max_attempts=max_attempts, max_losses=max_losses)
        for worker in sorted(workers):
            self.add(worker)

    def generate(self, victim: VictimSpec, count: int) -> Iterator[Evaluation]:
        for i in range(count):
            unit = Evaluation(f"{victim.victim_id}/{i}", victim, FGSM, (("cell", 0.1),), start=i, stop=i + 1)
            self.generated.add(unit.unit_id)
            yield unit

    def add(self, worker: str, *, strong: bool = True) -> None:
        self.scheduler.join(worker, strong=strong)
        self.model.weak -= {worker}
        self.model.weak |= set() if strong else {worker}
        self.model.workers[worker] = []
        self.model.on[worker] = None

    def ask(self, worker: str) -> None:
        model = self.model
        startable = self.scheduler.startable
        unit = self.scheduler.next_unit(worker)
        assert (startable > 0) == (unit is not None)
        allowed = [] if self.drained else model.allowed(worker)
        if unit is None:
            assert not allowed, f"{worker} idles, though it could run {allowed}"
            return
        assert unit.unit_id in {truth.unit_id for truth in allowed}
        truth = self.by_id[unit.unit_id]
        assert isinstance(unit, Training) == truth.trains
        truth.state = "running"
        self.begin(worker, truth)

    def begin(self, worker: str, truth: Truth) -> None:
        model = self.model
        model.runs[worker] = truth
        model.on[worker] = truth.victim
        model.workers[worker] = [v for v in model.workers[worker] if v != truth.victim] + [truth.victim]

    def check(self, outcome: Outcome | None, truth: Truth, worker: str, *, ok: bool, charged: bool) -> None:
        """Compare an outcome with what it should have been, and update the model."""
        assert outcome is not None
        assert outcome.unit.unit_id == truth.unit_id
        others = [other for other, runs in self.model.runs.items() if runs is truth]
        if truth.state != "running":  # the other was first
            assert (outcome.state, outcome.also) == ("copy", None)
            return
        assert (outcome.attempt, outcome.also) == (truth.charged + 1, others[0] if others else None)
        if not ok and others:
            truth.failed_on, truth.blamed = worker, truth.blamed or charged
            assert (outcome.state, outcome.skipped) == ("copy", 0)
            return
        skipped = 0
        if ok:
            truth.state = expected = "done"
        else:
            if charged or truth.blamed or truth.losses == self.max_losses:
                truth.charged += 1
                truth.blamed = False
            else:
                truth.losses += 1
            final = truth.charged == self.max_attempts
            truth.state, expected = ("failed", "failed") if final else ("waiting", "retry")
            truth.failed_on = worker
            if final and truth.trains:
                for other in self.model.of(truth.victim, "waiting"):
                    other.state = "failed"
                    skipped += 1
        assert (outcome.state, outcome.skipped) == (expected, skipped)

    @rule(worker=st.sampled_from(NAMES), strong=st.booleans())
    def join(self, worker: str, strong: bool) -> None:
        if worker not in self.model.workers:
            self.add(worker, strong=strong)

    @rule()
    def everybody_asks(self) -> None:
        for worker in list(self.model.workers):
            if worker not in self.model.runs:
                self.ask(worker)

    @precondition(lambda self: len(self.model.runs) < len(self.model.workers))
    @rule(data=st.data())
    def one_asks(self, data: st.DataObject) -> None:
        self.ask(data.draw(st.sampled_from([w for w in self.model.workers if w not in self.model.runs])))

    @precondition(lambda self: 0 < len(self.model.runs) < len(self.model.workers))
    @rule(data=st.data())
    def copies(self, data: st.DataObject) -> None:
        model = self.model
        worker = data.draw(st.sampled_from([w for w in model.workers if w not in model.runs]))
        of = data.draw(st.sampled_from([*model.runs, *NAMES]))
        unit, truth = self.scheduler.copy(worker, of), model.runs.get(of)
        pointless = truth is None or truth.state != "running" or truth.trains or self.drained
        if pointless or list(model.runs.values()).count(truth) > 1 or truth.failed_on == worker:
            assert unit is None
        else:
            assert unit is not None and unit.unit_id == truth.unit_id
            self.begin(worker, truth)

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, ok: bool) -> None:
        self.end(data.draw(st.sampled_from(list(self.model.runs))), ok=ok)

    def end(self, worker: str, *, ok: bool) -> None:
        truth = self.model.runs.pop(worker)
        self.check(self.scheduler.finish(worker, ok=ok), truth, worker, ok=ok, charged=True)
        if truth.trains and not ok:
            self.model.workers[worker].remove(truth.victim)
            self.model.on[worker] = None

    @precondition(lambda self: self.model.workers)
    @rule(data=st.data(), charged=st.booleans())
    def lose(self, data: st.DataObject, charged: bool) -> None:
        worker = data.draw(st.sampled_from(list(self.model.workers)))
        outcome = self.scheduler.lose(worker, charged=charged)
        del self.model.workers[worker], self.model.on[worker]
        truth = self.model.runs.pop(worker, None)
        if truth is None:
            assert outcome is None
        else:
            self.check(outcome, truth, worker, ok=False, charged=charged)

    @invariant()
    def drain_when_it_is_time(self) -> None:
        self.steps += 1
        if self.drain_after is not None and self.steps > self.drain_after:
            self.scheduler.drain()
            self.drained = True

    @invariant()
    def the_counts_are_right(self) -> None:
        scheduler, model = self.scheduler, self.model
        assert scheduler.total == len(model.units)
        for state in ("waiting", "running", "done", "failed"):
            assert getattr(scheduler, state) == model.count(state), state
        assert scheduler.waiting + scheduler.running + scheduler.done + scheduler.failed == scheduler.total
        assert scheduler.startable == (0 if self.drained else len(model.startable()))
        idle = not model.count("running")  # what others have done runs on, and nobody waits for it
        assert scheduler.finished == (idle and (self.drained or not model.count("waiting")))

    @invariant()
    def nothing_is_generated_ahead(self) -> None:
        for victim in {truth.victim for truth in self.model.units}:
            started = [
                t
                for t in self.model.units
                if t.victim == victim and not t.trains and t.unit_id in self.generated
            ]
            unstarted = [t for t in started if t.state == "waiting" and t.failed_on is None]
            assert len(unstarted) <= 1
            if any(t.trains and t.state == "failed" for t in self.model.units if t.victim == victim):
                assert not started

    def teardown(self) -> None:
        """Whatever happened, one healthy worker brings the sweep to its end."""
        if not hasattr(self, "scheduler"):
            return
        while self.model.runs:
            self.end(next(iter(self.model.runs)), ok=True)
        if not self.model.workers:
            self.add(NAMES[0])
        worker = next(iter(self.model.workers))
        for _ in range(len(self.model.units)):
            self.ask(worker)
            if worker in self.model.runs:
                self.end(worker, ok=True)
        self.the_counts_are_right()
        assert self.scheduler.finished
        if not self.drained:
            assert all(truth.state in ("done", "failed") for truth in self.model.units)


TestSweep = Sweep.TestCase
TestSweep.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
