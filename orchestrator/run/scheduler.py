"""Which unit goes to which worker next: a pure state machine, without Ray, clocks, threads or randomness.

The driver tells it what happened (`join`, `finish`, `lose`) and asks, whenever a worker is idle, what that
worker should do (`next_unit`). Loading a victim and tracing its functions is the dear part of a small unit,
so a worker stays with the victims it holds; a victim that nobody is on comes before one that somebody is,
so that training starts early, the longest first, and workers gather on the same victim only when nothing
else is left. Who has nothing to do may be given a copy of what runs elsewhere: the first to finish counts.

An answer takes the logarithm of the number of victims, whatever the number of workers and units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.run.ranking import Ranking
from orchestrator.run.work import Job, Network, Outcome, Victim, VictimWork, WorkerState
from workers.unit import Training, Unit


class Scheduler:
    """Hands every unit of `work` to a worker until it ends, exactly once, as done or failed.

    Of victims that share a network, one is trained at a time, until it is there. What comes `after` others
    waits for their trainings, and runs when these have failed too: it is for its units to know.

    A unit of which a copy runs is done when either is, and fails when both have: that is one attempt, charged
    if one of the two was. The other worker's end says nothing then, and nothing waits for it.

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
        self._victims: dict[str, Victim] = {}  # in the order of the plan
        # Those with a unit that some worker could start: for strong workers, for others once there are any.
        self._able = {True: Ranking[Victim]()}
        self._startable = 0
        self._workers: dict[str, WorkerState] = {}
        self._running: dict[str, Job] = {}
        self._units_running = 0
        self._drained = False
        self.retries_first = False  # set to learn soon, rather than at the end, whether failures are for good
        self._preferred: Callable[[str], bool] = lambda victim_id: True
        self.total = self.done = self.failed = 0
        networks: dict[str, Network] = {}
        after: dict[Victim, frozenset[str]] = {}
        for place, entry in enumerate(work):
            if entry.victim_id in self._victims:
                raise ValueError(f"victim {entry.victim_id} has two entries, only one is allowed")
            if entry.count < 0:
                raise ValueError(f"victim {entry.victim_id}: its count is {entry.count}, not 0 or more")
            network = networks.setdefault(entry.network_id, Network())
            victim = Victim(
                entry.victim_id,
                place,
                entry.effort,
                None,
                entry.units,
                entry.count,
                entry.training is None,
                network,
            )
            network.victims.append(victim)
            if entry.training is not None:
                victim.training = Job(entry.training, victim)
            self.total += victim.waiting
            self._victims[entry.victim_id] = victim
            after[victim] = entry.after
        for victim, names in after.items():
            if unknown := sorted(names - self._victims.keys()):
                raise ValueError(f"{victim.victim_id} comes after {unknown[0]}, which has no entry")
            for name in names:
                other = self._victims[name]
                if other.training is not None:
                    other.followers.append(victim)
                    victim.pending += 1
        self._rank(*self._victims.values())

    @property
    def preferred(self) -> Callable[[str], bool]:
        """Which victims, by id, come before the others; by default they are all alike."""
        return self._preferred

    @preferred.setter
    def preferred(self, preferred: Callable[[str], bool]) -> None:
        self._preferred = preferred
        self._rank(*self._victims.values())

    @property
    def running(self) -> int:
        """Units, not workers: two may run the same, or one that is done."""
        return self._units_running

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.failed - self.running

    @property
    def finished(self) -> bool:
        """Nothing runs and nothing will ever be handed out; after `drain`, units may still be waiting."""
        return not self._units_running and (self._drained or not self.waiting)

    @property
    def useful(self) -> int:
        """How many workers could still be of use: one for each unit that runs or waits, and one more for what
        may have to be retried elsewhere than where it fails, or copied."""
        return self.running if self._drained else self.running + self.waiting + (self.running > 0)

    @property
    def startable(self) -> int:
        """How many units could start now, were there workers."""
        return 0 if self._drained else self._startable

    def join(self, worker: str, *, strong: bool = True) -> None:
        """A worker became ready, holding no victim. One that is not `strong` leaves large ones to others."""
        if worker in self._workers:
            raise ValueError(f"worker {worker} joined already, it must be lost before it joins again")
        self._workers[worker] = WorkerState(strong)
        if strong not in self._able:
            self._able[strong] = Ranking()
            self._rank(*self._victims.values())

    def next_unit(self, worker: str) -> Unit | None:
        """Assign a unit to an idle worker; None when there is none for it now.

        None may change with the next outcome, when a training that runs elsewhere ends or a unit has to be
        retried. Asking the worker that has been idle longest first lets retries land on another worker.
        """
        state = self._idle(worker)
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
        self._units_running += 1
        if isinstance(job.unit, Training) and not victim.network.trained:
            victim.network.busy = True
            self._rank(*victim.network.victims)
        self._begin(worker, job)
        return job.unit

    def copy(self, worker: str, of: str) -> Unit | None:
        """Let an idle worker run what the worker `of` runs as well; None where that is not to be.

        Never a training: of two that a victim is trained by, weights differ in their last bits, one would be
        pinned, and what stands on the others would not count. Nor a third run of one unit, nor one that last
        failed on this worker.
        """
        self._idle(worker)
        job = self._running.get(of)
        if job is None or job.done or self._drained or isinstance(job.unit, Training):
            return None
        if len(job.workers) > 1 or job.failed_on == worker:
            return None
        self._begin(worker, job)
        return job.unit

    def finish(self, worker: str, *, ok: bool) -> Outcome:
        """The worker's unit ended, and the worker lives."""
        state = self._worker(worker)
        job = self._ended(worker)
        if job is None:
            raise ValueError(f"worker {worker} runs no unit, so none can finish")
        victim = job.victim
        if not ok and not victim.trained:  # there are no weights that the worker could hold
            del state.held[victim]
            victim.on -= 1
            state.on = None
        if not ok:
            return self._fail(job, worker, charged=True)
        return self._done(job)

    def lose(self, worker: str, *, charged: bool) -> Outcome | None:
        """The worker is gone; None if it had no unit.

        `charged`: its process died on a live node, or was killed for a timeout, so the unit itself is under
        suspicion. Not charged: its node died, or it retired.
        """
        state = self._worker(worker)
        del self._workers[worker]
        if state.on is not None:
            state.on.on -= 1
            self._rank(state.on)
        job = self._ended(worker)
        return None if job is None else self._fail(job, worker, charged=charged)

    def give_back(self, worker: str) -> None:
        """The worker could not do its unit for a reason that is not the unit's; nothing is charged."""
        job = self._ended(worker)
        if job is None:
            raise ValueError(f"worker {worker} runs no unit, so none can be given back")
        if not job.done and not job.workers:
            self._stopped(job)
            self._requeue(job, worker)

    def drain(self) -> None:
        """Hand out nothing more; units that run may still finish."""
        self._drained = True

    def abandon(self) -> None:
        """Stop now: drain, and count what runs as waiting. Nothing that ran can finish any more."""
        self._drained = True
        self._running.clear()
        self._units_running = 0

    def _worker(self, worker: str) -> WorkerState:
        try:
            return self._workers[worker]
        except KeyError:
            live = ", ".join(sorted(self._workers)) or "none"
            raise ValueError(f"worker {worker} has not joined or was lost; live workers: {live}") from None

    def _idle(self, worker: str) -> WorkerState:
        state = self._worker(worker)
        if worker in self._running:
            unit_id = self._running[worker].unit.unit_id
            raise ValueError(f"worker {worker} still runs {unit_id}, it must end first")
        return state

    def _begin(self, worker: str, job: Job) -> None:
        """A worker turns to a unit, and to its victim."""
        state, victim = self._workers[worker], job.victim
        self._running[worker] = job
        job.workers.append(worker)
        if state.on is not victim:
            if state.on is not None:
                state.on.on -= 1
                self._rank(state.on)
            victim.on += 1
            state.on = victim
        state.held.pop(victim, None)
        state.held[victim] = None
        self._rank(victim)

    def _ended(self, worker: str) -> Job | None:
        """What a worker ran, which it runs no more."""
        job = self._running.pop(worker, None)
        if job is not None:
            job.workers.remove(worker)
        return job

    def _stopped(self, job: Job, *, ok: bool = False) -> None:
        """Nobody runs a unit any more; if it was a training, others may have the network, or try for it."""
        self._units_running -= 1
        victim = job.victim
        victim.running -= 1
        if isinstance(job.unit, Training):
            network = victim.network
            was_busy, network.busy = network.busy, False
            network.trained |= ok
            if was_busy:
                self._rank(*network.victims)

    def _done(self, job: Job) -> Outcome:
        also = job.workers[0] if job.workers else None
        if job.done:
            return Outcome(job.unit, "copy", job.attempt)
        job.done = True
        self.done += 1
        self._stopped(job, ok=True)
        if isinstance(job.unit, Training):
            self._release(job.victim)
        job.victim.trained = True
        self._rank(job.victim)
        return Outcome(job.unit, "done", job.attempt, also=also)

    def _fail(self, job: Job, worker: str, *, charged: bool) -> Outcome:
        if job.done:
            return Outcome(job.unit, "copy", job.attempt)
        attempt, job.failed_on = job.attempt, worker
        job.charged |= charged
        if job.workers:
            return Outcome(job.unit, "copy", attempt, also=job.workers[0])
        self._stopped(job)
        if not job.charged and job.losses < self._max_losses:
            job.losses += 1
            self._requeue(job, worker)
            return Outcome(job.unit, "retry", attempt)
        job.charged = False
        if attempt < self._max_attempts:
            job.attempt += 1
            self._requeue(job, worker)
            return Outcome(job.unit, "retry", attempt)
        skipped = 0 if job.victim.trained else job.victim.fresh
        self.failed += 1 + skipped
        if isinstance(job.unit, Training):
            self._release(job.victim)
        self._rank(job.victim)
        return Outcome(job.unit, "failed", attempt, skipped)

    def _choose(self, state: WorkerState, avoid: str | None) -> Victim | None:
        for victim in reversed([*state.held]):
            if victim.offers(avoid):
                return victim
            if victim.over:
                del state.held[victim]
        return self._able[state.strong].first(lambda victim: victim.offers(avoid))

    def _rank(self, *victims: Victim) -> None:
        """What they offer, or how urgent they are, has changed."""
        for victim in victims:
            startable = victim.startable
            self._startable += startable - victim.counted
            victim.counted = startable
            for strong, ranking in self._able.items():
                key: tuple[Any, ...] | None = None
                if startable:
                    key = not self._preferred(victim.victim_id), *victim.urgency(strong=strong), victim.place
                ranking.put(victim, key)

    def _release(self, victim: Victim) -> None:
        """Its training is done, or has failed for good: nobody need wait for it any longer."""
        for other in victim.followers:
            other.pending -= 1
            if not other.pending:
                self._rank(other)
        victim.followers.clear()

    def _requeue(self, job: Job, worker: str) -> None:
        job.victim.give_back(job, worker)
        self._rank(job.victim)
