"""What is to be done, victim by victim, and what has come of it: the state that the scheduler keeps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
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
    effort: float = 0.0  # how long its training takes beside those of others, in whatever unit

    @property
    def network_id(self) -> str:
        return self.training.victim.network.victim_id if self.training else self.victim_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt at a unit means for the sweep."""

    unit: Unit
    state: Literal["done", "retry", "failed", "copy"]  # copy: nothing, as it is done or runs elsewhere too
    attempt: int  # 1-based; an attempt lost without charge is made again under the same number
    skipped: int = 0  # evaluation units that failed without running, because this was their victim's training
    also: str | None = None  # the worker that runs the unit too, still


@dataclass(eq=False, slots=True)
class Network:
    """What victims share that differ in their defence at inference: trained for one, then there for all."""

    victims: list[Victim] = field(default_factory=list)
    trained: bool = False
    busy: bool = False  # being trained


@dataclass(eq=False, slots=True)
class Victim:
    victim_id: str
    place: int  # in the plan
    effort: float
    training: Job | None
    units: Iterator[Evaluation | Transfer]
    fresh: int  # evaluation units not yet generated
    trained: bool
    network: Network
    pending: int = 0  # trainings of others that have to end first
    followers: list[Victim] = field(default_factory=list)  # those for which its training has to end first
    retries: dict[str, deque[Job]] = field(default_factory=dict)  # by the worker that they last failed on
    retried: int = 0  # how many those are
    running: int = 0  # units
    on: int = 0  # live workers whose latest unit was of this victim
    counted: int = 0  # of `startable`, in the scheduler's

    @property
    def waiting(self) -> int:
        return (self.training is not None) + self.fresh + self.retried

    @property
    def startable(self) -> int:
        """How many units could start now, on as many workers."""
        if not self.offers(None):
            return 0
        return 1 if self.training is not None else (self.fresh if self.trained else 0) + self.retried

    @property
    def over(self) -> bool:
        """Whether it will never have anything to do again."""
        return not self.waiting and not self.running

    def offers(self, avoid: str | None) -> bool:
        """Whether a unit could start now, other than one that last failed on the worker `avoid`."""
        if self.pending:
            return False
        # Until the training is done, it is the only unit that can be in `retries`.
        if self.network.busy and not self.trained:
            return False
        if self.training is not None or (self.trained and self.fresh):
            return True
        return bool(self.retries) and any(worker != avoid for worker in self.retries)

    def urgency(self, *, strong: bool) -> tuple[float, ...]:
        """The least first: most units waiting per worker on it, infinitely many with nobody; then the longest
        training; then the most units waiting. For a worker that is not strong, of those with nobody the
        shortest training and the fewest units."""
        waiting, sign = self.waiting, -1 if strong or self.on else 1
        effort = 0.0 if self.trained or self.network.trained else self.effort
        return (-(waiting / self.on if self.on else math.inf), sign * effort, sign * waiting)

    def take(self, avoid: str | None, *, retries_first: bool) -> Job:
        """The next unit of those that `offers` speaks of: fresh ones in order, then the retried."""
        if self.training is not None:
            job, self.training = self.training, None
        elif self.trained and self.fresh and not (retries_first and self.retries):
            job = Job(self._generate(), self)
        else:
            worker = next(worker for worker in self.retries if worker != avoid)
            job = self.retries[worker].popleft()
            self.retried -= 1
            if not self.retries[worker]:
                del self.retries[worker]
        self.running += 1
        return job

    def give_back(self, job: Job, worker: str) -> None:
        """A unit that ran is to be tried again."""
        self.retries.setdefault(worker, deque()).append(job)
        self.retried += 1

    def _generate(self) -> Evaluation | Transfer:
        unit = next(self.units, None)
        if unit is None:
            raise ValueError(f"victim {self.victim_id}: its units ended {self.fresh} short of its count")
        self.fresh -= 1
        if not self.fresh and next(self.units, None) is not None:
            raise ValueError(f"victim {self.victim_id}: it has more units than its count")
        return unit


@dataclass(eq=False, slots=True)
class Job:
    unit: Unit
    victim: Victim
    attempt: int = 1
    losses: int = 0  # times lost without charge
    workers: list[str] = field(default_factory=list)  # that run it: none, one, or two of which one has a copy
    failed_on: str | None = None
    charged: bool = False  # one of two has failed so that it counts
    done: bool = False


@dataclass(eq=False, slots=True)
class WorkerState:
    strong: bool
    on: Victim | None = None
    held: dict[Victim, None] = field(default_factory=dict)  # an ordered set, the latest last
