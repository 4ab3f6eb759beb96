"""Which unit goes to which worker next: a pure state machine, without Ray, clocks, threads or randomness.

The driver tells it what happened (`join`, `finish`, `lose`) and asks, whenever a worker is idle, what that
worker should do (`next_unit`). Loading a victim and tracing its functions is the dear part of a small unit,
so a worker stays with the victims it holds; a victim that nobody is on comes before one that somebody is,
so that training starts early and workers gather on the same victim only when nothing else is left.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from workers.unit import Evaluation, Training, Transfer, Unit


@dataclass(frozen=True, slots=True)
class VictimWork:
    """One victim's share of the plan; or what is to be done with it and others, under an id of its own."""

    victim_id: str
    training: Training | None  # must be done before its units; None: nothing to do first
    units: Iterator[Evaluation | Transfer]  # generated lazily: never listed
    count: int  # how many `units` will yield
    after: frozenset[str] = frozenset()  # other entries, whose trainings must have ended, however they did


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt at a unit means for the sweep."""

    unit: Unit
    state: Literal["done", "retry", "failed"]
    attempt: int  # 1-based; an attempt lost without charge is made again under the same number
    skipped: int = 0  # evaluation units that failed without running, because this was their victim's training


@dataclass(eq=False, slots=True)
class _Network:
    """What victims share that differ in their defence at inference: trained for one, then there for all."""

    trained: bool = False
    busy: bool = False  # being trained


@dataclass(eq=False, slots=True)
class _Victim:
    victim_id: str
    training: _Job | None
    units: Iterator[Evaluation | Transfer]
    fresh: int  # evaluation units not yet generated
    trained: bool
    network: _Network
    after: set[str] = field(default_factory=set)  # those of its entry's whose trainings have not ended yet
    retries: dict[str, deque[_Job]] = field(default_factory=dict)  # by the worker that they last failed on
    on: int = 0  # live workers whose latest unit was of this victim

    @property
    def waiting(self) -> int:
        return (self.training is not None) + self.fresh + self._retried

    def offers(self, avoid: str | None) -> bool:
        """Whether a unit could start now, other than one that last failed on the worker `avoid`."""
        if self.after:
            return False
        # Until the training is done, it is the only unit that can be in `retries`.
        if self.network.busy and not self.trained:
            return False
        if self.training is not None or (self.trained and self.fresh):
            return True
        # The first test is for speed alone: hardly any victim has retries, and all of them are asked.
        return bool(self.retries) and any(worker != avoid for worker in self.retries)

    @property
    def startable(self) -> int:
        """How many units could start now, on as many workers."""
        if not self.offers(None):
            return 0
        return 1 if self.training is not None else (self.fresh if self.trained else 0) + self._retried

    @property
    def _retried(self) -> int:
        return sum(map(len, self.retries.values()))

    def take(self, avoid: str | None, *, retries_first: bool) -> _Job:
        """The next unit of those that `offers` speaks of: fresh ones in order, then the retried."""
        if self.training is not None:
            job, self.training = self.training, None
        elif self.trained and self.fresh and not (retries_first and self.retries):
            job = _Job(self._generate(), self)
        else:
            worker = next(worker for worker in self.retries if worker != avoid)
            job = self.retries[worker].popleft()
            if not self.retries[worker]:
                del self.retries[worker]
        return job

    def _generate(self) -> Evaluation | Transfer:
        unit = next(self.units, None)
        if unit is None:
            raise ValueError(f"victim {self.victim_id}: its units ended {self.fresh} short of its count")
        self.fresh -= 1
        if not self.fresh and next(self.units, None) is not None:
            raise ValueError(f"victim {self.victim_id}: it has more units than its count")
        return unit


@dataclass(eq=False, slots=True)
class _Job:
    unit: Unit
    victim: _Victim
    attempt: int = 1
    losses: int = 0  # times lost without charge


@dataclass(eq=False, slots=True)
class _Worker:
    strong: bool
    on: _Victim | None = None
    held: dict[_Victim, None] = field(default_factory=dict)  # an ordered set, the latest last


class Scheduler:
    """Hands every unit of `work` to a worker until it ends, exactly once, as done or failed.

    Of victims that share a network, one is trained at a time, until it is there. What comes `after` others
    waits for their trainings, and runs when these have failed too: it is for its units to know.

    A unit is tried at most `max_attempts` times (at least 1). Losing it with its node is not charged as an
    attempt, up to `max_losses` times (at least 0) per unit. Memory grows with the victims, the workers and
    the units being retried, never with the number of units. Of a failed victim no unit runs.

    Raises ValueError for limits out of range, negative counts, two entries for one victim, a victim that
    yields more or fewer units than its count or comes after one without an entry, and calls that contradict
    what was said before (a worker that joins twice, is asked while it runs a unit, or finishes one it was not
    given).
    """

    def __init__(self, work: Iterable[VictimWork], *, max_attempts: int = 2, max_losses: int = 5) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}, it must be at least 1")
        if max_losses < 0:
            raise ValueError(f"max_losses is {max_losses}, it must be at least 0")
        self._max_attempts = max_attempts
        self._max_losses = max_losses
        self._victims: dict[str, _Victim] = {}  # in the order of the plan
        self._workers: dict[str, _Worker] = {}
        self._running: dict[str, _Job] = {}
        self._drained = False
        self.retries_first = False  # set to learn soon, rather than at the end, whether failures are for good
        self.preferred: Callable[[str], bool] = lambda victim_id: True  # victims that come before the others
        self.total = self.done = self.failed = 0
        networks: dict[str, _Network] = {}
        for entry in work:
            if entry.victim_id in self._victims:
                raise ValueError(f"victim {entry.victim_id} has two entries, only one is allowed")
            if entry.count < 0:
                raise ValueError(f"victim {entry.victim_id}: its count is {entry.count}, not 0 or more")
            network = networks.setdefault(_network_id(entry), _Network())
            no_training = entry.training is None
            victim = _Victim(entry.victim_id, None, entry.units, entry.count, no_training, network)
            if entry.training is not None:
                victim.training = _Job(entry.training, victim)
            self.total += victim.waiting
            self._victims[entry.victim_id] = victim
            victim.after = set(entry.after)
        for victim in self._victims.values():
            if unknown := sorted(victim.after - self._victims.keys()):
                raise ValueError(f"{victim.victim_id} comes after {unknown[0]}, which has no entry")
            victim.after = {name for name in victim.after if self._victims[name].training is not None}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.failed - self.running

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing will ever be handed out; after `drain`, units may still be waiting."""
        return not self._running and (self._drained or not self.waiting)

    @property
    def useful(self) -> int:
        """How many workers could still be of use: one for each unit that runs or waits, and one more for what
        may have to be retried elsewhere than where it fails."""
        return self.running if self._drained else self.running + self.waiting + (self.running > 0)

    @property
    def startable(self) -> int:
        """How many units could start now, were there workers. Asks all victims: not for every event."""
        return 0 if self._drained else sum(victim.startable for victim in self._victims.values())

    def join(self, worker: str, *, strong: bool = True) -> None:
        """A worker became ready, holding no victim. One that is not `strong` leaves large ones to others."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} joined already, it must be lost before it joins again")
        self._workers[worker] = _Worker(strong)

    def next_unit(self, worker: str) -> Unit | None:
        """Assign a unit to an idle worker; None when there is none for it now.

        None may change with the next outcome, when a training that runs elsewhere ends or a unit has to be
        retried. Asking the worker that has been idle longest first lets retries land on another worker.
        """
        state = self._worker(worker)
        if worker in self._running:
            unit_id = self._running[worker].unit.unit_id
            raise ValueError(f"worker {worker} still runs {unit_id}, it must end first")
        if self._drained or not self.waiting:
            return None
        # What failed on this worker comes last of all, unless there is nobody else who could try it.
        for avoid in (worker, None) if len(self._workers) > 1 and not self.retries_first else (None,):
            victim = self._choose(state, avoid)
            if victim is not None:
                job = victim.take(avoid, retries_first=self.retries_first)
                break
        else:
            return None
        self._running[worker] = job
        if isinstance(job.unit, Training) and not victim.network.trained:
            victim.network.busy = True
        if state.on is not victim:
            if state.on is not None:
                state.on.on -= 1
            victim.on += 1
            state.on = victim
        state.held.pop(victim, None)
        state.held[victim] = None
        return job.unit

    def finish(self, worker: str, *, ok: bool) -> Outcome:
        """The worker's unit ended, and the worker lives."""
        state = self._worker(worker)
        job = self._running.pop(worker, None)
        if job is None:
            raise ValueError(f"worker {worker} runs no unit, so none can finish")
        victim = job.victim
        self._left(job, ok=ok)
        if not ok:
            if not victim.trained:  # there are no weights that the worker could hold
                del state.held[victim]
                victim.on -= 1
                state.on = None
            return self._fail(job, worker)
        self.done += 1
        if isinstance(job.unit, Training):
            self._ended(victim)
        victim.trained = True
        return Outcome(job.unit, "done", job.attempt)

    def lose(self, worker: str, *, charged: bool) -> Outcome | None:
        """The worker is gone; None if it had no unit.

        `charged`: its process died on a live node, or was killed for a timeout, so the unit itself is under
        suspicion. Not charged: its node died, or it retired.
        """
        state = self._worker(worker)
        del self._workers[worker]
        if state.on is not None:
            state.on.on -= 1
        job = self._running.pop(worker, None)
        if job is None:
            return None
        self._left(job, ok=False)
        if charged or job.losses >= self._max_losses:
            return self._fail(job, worker)
        job.losses += 1
        self._requeue(job, worker)
        return Outcome(job.unit, "retry", job.attempt)

    def give_back(self, worker: str) -> None:
        """The worker could not do its unit for a reason that is not the unit's; nothing is charged."""
        job = self._running.pop(worker, None)
        if job is None:
            raise ValueError(f"worker {worker} runs no unit, so none can be given back")
        self._left(job, ok=False)
        self._requeue(job, worker)

    def drain(self) -> None:
        """Hand out nothing more; units that run may still finish."""
        self._drained = True

    def abandon(self) -> None:
        """Stop now: drain, and count what runs as waiting. Nothing that ran can finish any more."""
        self._drained = True
        self._running.clear()

    def _worker(self, worker: str) -> _Worker:
        try:
            return self._workers[worker]
        except KeyError:
            live = ", ".join(sorted(self._workers)) or "none"
            raise ValueError(f"worker {worker} has not joined or was lost; live workers: {live}") from None

    def _left(self, job: _Job, *, ok: bool) -> None:
        """A unit runs no more; if it was a training, others may have the network, or try for it."""
        if isinstance(job.unit, Training):
            job.victim.network.busy = False
            job.victim.network.trained |= ok

    def _choose(self, state: _Worker, avoid: str | None) -> _Victim | None:
        for victim in reversed(state.held):
            if victim.offers(avoid):
                return victim
        able = (victim for victim in self._victims.values() if victim.offers(avoid))
        urgency = _urgency if state.strong else _smallest
        return max(able, key=lambda one: (self.preferred(one.victim_id), *urgency(one)), default=None)

    def _fail(self, job: _Job, worker: str) -> Outcome:
        attempt = job.attempt
        if attempt < self._max_attempts:
            job.attempt += 1
            self._requeue(job, worker)
            return Outcome(job.unit, "retry", attempt)
        skipped = 0 if job.victim.trained else job.victim.fresh
        self.failed += 1 + skipped
        if isinstance(job.unit, Training):
            self._ended(job.victim)
        return Outcome(job.unit, "failed", attempt, skipped)

    def _ended(self, victim: _Victim) -> None:
        """Its training is done, or has failed for good: nobody need wait for it any longer."""
        for other in self._victims.values():
            other.after.discard(victim.victim_id)

    def _requeue(self, job: _Job, worker: str) -> None:
        job.victim.retries.setdefault(worker, deque()).append(job)


def _network_id(entry: VictimWork) -> str:
    return entry.training.victim.network.victim_id if entry.training else entry.victim_id


def _urgency(victim: _Victim) -> tuple[float, int]:
    """Units waiting per worker already on the victim; ties (all those with nobody) by units waiting."""
    waiting = victim.waiting
    return (waiting / victim.on if victim.on else math.inf, waiting)


def _smallest(victim: _Victim) -> tuple[float, int]:
    """For a weak worker: of the victims with nobody the one with least waiting; else as for all."""
    return (math.inf, -victim.waiting) if not victim.on else _urgency(victim)
