"""The loop that turns a backend's events into scheduler calls until nothing is left to do."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from orchestrator.errors import BackendError, StoreError, UserError
from orchestrator.intervals import subtract
from orchestrator.plan.units import AnyGap, Plan, SourcePlan, VictimPlan, transfer_kind
from orchestrator.results.checks import judge_victims
from orchestrator.results.text.findings import brief
from orchestrator.run.backends import Backend, Finished, Lost, Notice, Pool, Ready
from orchestrator.run.events import said_of
from orchestrator.run.options import RunOptions
from orchestrator.run.progress import Progress, SweepState, duration
from orchestrator.run.scheduler import Scheduler
from orchestrator.run.sharing import Share, in_turn
from orchestrator.run.status import StatusWriter
from orchestrator.run.stragglers import stragglers
from orchestrator.run.training import TrainingWatch
from orchestrator.run.upkeep import Upkeep
from orchestrator.run.watching import Watching
from orchestrator.run.work import Outcome, VictimWork
from orchestrator.store.folder import Store
from workers.defences import gradients
from workers.probes import find_probes
from workers.unit import Done, Evaluation, Failed, Training, Transfer, Unit

_DEMAND_SECONDS = 1.0
_TICK = 0.5  # seconds: how soon a time limit or a signal is noticed


class Loop:
    """One run of a plan on a backend; `state` says throughout where it stands."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        options: RunOptions,
        run_id: str,
        backend: Backend,
        progress: Progress,
        state: SweepState,
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.options = options
        self.run_id = run_id
        self.backend = backend
        self.progress = progress
        self.state = state
        self.clock = clock
        self.began = clock()
        self.lost: set[str] = set()  # victims that could not be had
        self.scheduler = Scheduler(self._work(plan))
        self.upkeep = Upkeep(store, run_id, clock=clock)
        self.share = Share()  # of what is to be done, once another run has been seen here
        self.places = {victim.victim_id: place for place, (victim, _) in enumerate(plan.victims)}
        self.places |= {source.work_id: self.places[source.victim.victim_id] for source in plan.sources}
        self.todo = {victim.victim.victim_id: victim for victim in plan.todo}
        # What each victim has to be there for.
        self.gaps: dict[str, list[AnyGap]] = {name: [*victim.gaps] for name, victim in self.todo.items()}
        for source in plan.sources:
            for tried in source.gaps:
                for name in tried.victims:
                    self.gaps[name].append(tried)
        # How many units each unfinished cell still waits for.
        self.open_cells: Counter[str] = Counter()
        every: list[VictimPlan | SourcePlan] = [*plan.todo, *plan.sources]
        for each in every:
            for gap in each.gaps:
                units = gap.count(plan.slice_size)
                self.open_cells.update({cell_id: units for cell_id, _ in gap.cells})
        self.joined: set[str] = set()  # workers that became ready and live
        self.alone_since = self.began  # when the last of them was lost
        self.last_loss = ""  # why
        self.idle: dict[str, None] = {}  # workers without a unit, the longest idle first
        self.weak: set[str] = set()  # workers beside others that are far faster
        self.next_demand = self.began
        self.failing: set[str] = set()  # units to be retried; kept only where failures are limited
        self.allowed_failures = options.allowed_failures(self.scheduler.total)
        self.draining = False
        self.disk_full = ""  # what a worker said of it
        self.signals = 0
        self.told_by = ""  # the signal that was the first
        self.over = False
        self.training = TrainingWatch(store.folder, run_id, state)
        self.watching = Watching(store, run_id, options, state.grid)

    def _work(self, plan: Plan) -> Iterator[VictimWork]:
        def units(of: VictimPlan | SourcePlan) -> Iterator[Evaluation | Transfer]:
            for unit in in_turn(plan.units(of), lambda: self.share):
                yield unit.without(self.lost) if isinstance(unit, Transfer) else unit

        for victim in plan.todo:
            count = victim.count(plan.slice_size)
            training = victim.training
            yield VictimWork(training.victim.victim_id, training, units(victim), count, effort=victim.effort)
        for source in plan.sources:
            count = source.count(plan.slice_size)
            yield VictimWork(source.work_id, None, units(source), count, after=source.needed)

    def run(self, begin: Callable[[], None]) -> None:
        """Start the backend, call `begin`, then run until nothing is left or the run is told to stop.

        Raises BackendError when no worker can be had, and StoreError when a worker's disk is full; before
        `begin` has returned, nothing is written.
        """
        status = StatusWriter(self.store, self.run_id, self.state, self._now_and_then)
        try:
            with self.progress:
                self.state.waiting = "starting workers"
                self.progress.show(self.state)  # at once: a start takes seconds
                self.backend.start()
                begin()
                self.watching.started(self.state)
                status.start()
                # After that: of two runs that begin at once, at least one sees the other.
                self.upkeep.start()
                self.alone_since = self.clock()
                self._run(status)
        finally:
            self.backend.stop()

    def _now_and_then(self) -> None:
        """In the thread that writes the status."""
        self.training.look()
        self.watching.log.flush()

    def _run(self, status: StatusWriter) -> None:
        try:
            self._loop()
            self._conclude()
        except KeyboardInterrupt:
            self.scheduler.abandon()
            self.state.state = "interrupted"
            self.state.note = f"{self.told_by or 'Ctrl-C'}, and once more: stopped at once"
        except BaseException as error:
            self.state.state = "failed"
            if isinstance(error, UserError | OSError):
                self.state.note = str(error)
            raise
        finally:
            self.over = True
            self.state.waiting = ""
            self.state.workers.clear()
            self.progress.show(self.state)
            self.upkeep.close()
            status.close()
            self.watching.ended(self.state, self.scheduler.waiting)

    def _loop(self) -> None:
        while not self.scheduler.finished:
            if self.told_by:
                self._drain(self._told)
            self._share()
            self._hand_out()
            self._demand()
            for event in self.backend.wait(_TICK):
                match event:
                    case Ready():
                        self.scheduler.join(event.worker, strong=event.strong)
                        if not event.strong:
                            self.weak.add(event.worker)
                        self.state.waiting = ""
                        self.joined.add(event.worker)
                        self.state.seconds = self.clock() - self.began
                        if self.state.ready_after is None:
                            self.state.ready_after = self.state.seconds
                        self.state.usage.began(event.worker, self.state.seconds)
                        self.idle[event.worker] = None
                        self.state.workers[event.worker] = ""
                        self.watching.note("worker_joined", worker=event.worker, host=event.host)
                    case Finished():
                        self._finished(event)
                    case Lost():
                        self._lost(event.worker, event.reason, charged=event.charged)
                    case Pool():
                        self.state.pool = event.text
                    case Notice():
                        self.progress.say(event.text)
                        self.watching.note("notice", text=event.text)
                        if not self.draining:
                            self.state.note = event.text
            self._limits()
            self.state.seconds = self.clock() - self.began
            self.progress.show(self.state)
            self.watching.look(self.state, self.scheduler.waiting)

    def _share(self) -> None:
        """With the runs that have come since the last look."""
        while self.upkeep.news:
            other = self.upkeep.news.popleft()
            self.watching.note("other_run", run=other.run_id, host=other.host)
            self.progress.say(
                f"warning: run {other.run_id} on {other.host} is writing to this folder too; "
                "what one has done the other leaves out, but some units may be computed twice"
            )
            # Anew with every run that comes: by the order of other runs, of which some have ended since, two
            # would take the same share.
            self.share = self.upkeep.peers.share
            self.scheduler.preferred = self._preferred

    def _preferred(self, victim_id: str) -> bool:
        """Another run of this grid has its victims in the same order, whatever is left of them."""
        return self.share.takes(self.places[victim_id])

    def _demand(self) -> None:
        """Have the pool as large as there is work for; not asked for every event, since it takes a while."""
        if (now := self.clock()) < self.next_demand:
            return
        self.next_demand = now + _DEMAND_SECONDS
        scheduler = self.scheduler
        self.backend.demand(scheduler.useful, max(0, scheduler.startable - len(self.idle)))

    def _hand_out(self) -> None:
        for worker in sorted(self.idle, key=self.weak.__contains__):
            unit = self._next_unit(worker)
            if unit is None:
                continue
            self.training.began(worker, unit)
            self._submit(worker, unit, unit.label, _work(unit))
        if self.idle:
            self._copy_stragglers()

    def _copy_stragglers(self) -> None:
        """Whoever has nothing to do takes a copy of what takes too long elsewhere."""
        now = self.clock() - self.began
        late = stragglers(self.state.running, now, self.state.estimate.expected)
        for worker, of in zip(list(self.idle), late, strict=False):
            unit = self.scheduler.copy(worker, of)
            if unit is not None:
                self._submit(worker, unit, f"{unit.label}, as {of} takes long", {}, copy_of=of)

    def _submit(
        self, worker: str, unit: Unit, label: str, work: Mapping[str, int], *, copy_of: str | None = None
    ) -> None:
        """`work`: what is not done before this unit is; none of a copy."""
        del self.idle[worker]
        self.state.running[worker] = work, self.clock() - self.began
        self.state.workers[worker] = label
        self.backend.submit(worker, unit)
        self.watching.note("unit_started", worker=worker, **said_of(unit), copy_of=copy_of)

    def _next_unit(self, worker: str) -> Unit | None:
        """What the worker is to do next; what other runs have done meanwhile counts as done."""
        unit = self.scheduler.next_unit(worker)
        while unit is not None and self._done_elsewhere(unit):
            self.scheduler.finish(worker, ok=True)
            self.watching.note("unit_elsewhere", **said_of(unit))
            self.state.units_done += 1
            self.state.units_elsewhere += 1
            self.state.estimate.dropped(_work(unit))
            if not isinstance(unit, Training):
                self._cells_done(unit)
            unit = self.scheduler.next_unit(worker)
        return unit

    def _done_elsewhere(self, unit: Unit) -> bool:
        """Or, of a transfer between victims that could not be had, in vain."""
        if isinstance(unit, Transfer) and not unit.into:
            return True
        covered = self.upkeep.coverage
        if covered is None:
            return False
        lacking: Iterable[Evaluation | Transfer | AnyGap] = (
            self.gaps[unit.victim.victim_id] if isinstance(unit, Training) else (unit,)
        )
        return not any(
            subtract([(one.start, one.stop)], covered.get(cell_id, ()))
            for one in lacking
            for cell_id, _ in one.cells
        )

    def _finished(self, event: Finished) -> None:
        report, worker = event.report, event.worker
        self.training.ended(worker)
        _, begun = self.state.running.pop(worker)
        self.idle[worker] = None
        self.state.workers[worker] = ""
        if isinstance(report, Failed) and report.disk_full:
            self.scheduler.give_back(worker)
            self.disk_full = self.disk_full or report.error
            self._drain(f"{report.error}: finishing what is running, then stopping")
            return
        outcome = self.scheduler.finish(worker, ok=isinstance(report, Done))
        self._of_two(outcome)
        if isinstance(report, Failed):
            self._failed(outcome, worker, report.error, report.traceback)
            return
        took, copy = self.clock() - self.began - begun, outcome.state == "copy"
        self.watching.finished(worker, outcome.unit, report, took, copy=copy)
        if report.device:
            self.state.usage.learnt(worker, report.device, report.devices)
        for phase, seconds in report.phases.items():
            self.state.phases[phase] = self.state.phases.get(phase, 0.0) + seconds
        if copy:
            return
        self._watch_failures(outcome)
        self.state.units_done += 1
        for kind, amount in _work(outcome.unit).items():
            self.state.estimate.done(kind, amount, took)
        if isinstance(outcome.unit, Training):
            self.state.prepared[outcome.unit.victim.preparation] += report.trained
            self._say_what_probes_say(outcome.unit, report.weights)
        else:
            self._cells_done(outcome.unit)

    def _of_two(self, outcome: Outcome) -> None:
        """What another worker runs too is left to it alone now; or, once it is done, to nobody."""
        if outcome.also is not None:
            left = {} if outcome.state == "done" else _work(outcome.unit)
            self.state.running[outcome.also] = left, self.state.running[outcome.also][1]

    def _say_what_probes_say(self, unit: Training, weights: str) -> None:
        """A sick victim is to be known now, not after a night of attacks."""
        probes = find_probes(self.store.folder, unit.victim.victim_id, weights)
        if probes is None:
            return
        for severity, text in brief(judge_victims([unit.victim], [probes])):
            self.progress.say(f"{severity}: {text}")

    def _cells_done(self, unit: Evaluation | Transfer) -> None:
        for cell_id, _ in unit.cells:
            self.open_cells[cell_id] -= 1
            if not self.open_cells[cell_id]:
                del self.open_cells[cell_id]
                self.state.cells_done += 1

    def _lost(self, worker: str, reason: str, *, charged: bool) -> None:
        self.idle.pop(worker, None)
        self.weak.discard(worker)
        self.state.running.pop(worker, None)
        self.training.ended(worker)
        self.state.workers.pop(worker, None)
        self.watching.note("worker_lost", worker=worker, reason=reason, charged=charged)
        self.last_loss = reason
        if worker not in self.joined:
            return  # it never became ready, so the scheduler has not heard of it
        self.joined.remove(worker)
        self.state.usage.ended(worker, self.clock() - self.began)
        if not self.joined:
            self.alone_since = self.clock()
        outcome = self.scheduler.lose(worker, charged=charged)
        if outcome is not None:
            self._of_two(outcome)
            self._failed(outcome, worker, reason, "")

    def _failed(self, outcome: Outcome, worker: str, error: str, traceback: str) -> None:
        final = outcome.state == "failed"
        self.watching.failed(worker, outcome.unit, error, attempt=outcome.attempt, final=final)
        if outcome.state == "copy":  # the other run of the unit has done it, or may still
            return
        self.store.record_failure(
            self.run_id,
            outcome.unit,
            attempt=outcome.attempt,
            final=final,
            error=error,
            traceback=traceback,
            worker=worker,
        )
        self._watch_failures(outcome)
        if not final:
            self.state.retries += 1
            return
        unit = outcome.unit
        # What will never be done must not count as time left.
        self.state.estimate.dropped(_work(unit))
        if isinstance(unit, Training):
            self.lost.add(unit.victim.victim_id)
            self.state.estimate.dropped(self.todo[unit.victim.victim_id].work)
        self.state.units_failed += 1 + outcome.skipped
        self.state.failures.append(f"{unit.label}: {error}")
        if self.state.units_failed > self.allowed_failures:
            self._drain(
                f"more than {self.options.max_failures} failed: finishing what is running, then stopping"
            )

    def _watch_failures(self, outcome: Outcome) -> None:
        """Retry at once, when more units are failing than may fail: the sweep may be hopeless."""
        if self.options.max_failures is None:
            return
        if outcome.state == "retry":
            self.failing.add(outcome.unit.unit_id)
        else:
            self.failing.discard(outcome.unit.unit_id)
        self.scheduler.retries_first = len(self.failing) + self.scheduler.failed > self.allowed_failures

    def _limits(self) -> None:
        now = self.clock()
        timeout = self.options.seconds_per_unit
        if timeout is not None:
            for worker, (_, begun) in list(self.state.running.items()):
                if now - self.began - begun > timeout:
                    self.backend.kill(worker)
                    limit = duration(timeout)
                    reason = f"TimeoutError: not through after {limit} (--unit-timeout)"
                    self._lost(worker, reason, charged=True)
        if not self.joined and not self.scheduler.finished:
            self._without_workers(now - self.alone_since)
        if self.options.stop_after is not None and now - self.began >= self.options.stop_after:
            self._drain(f"--stop-after {duration(self.options.stop_after)}: finishing what is running")

    def _without_workers(self, seconds: float) -> None:
        """Say that no worker lives; BackendError once that has been so for too long."""
        limit = self.options.wait_for_workers
        if limit and seconds >= limit:
            why = f" (the last one: {self.last_loss})" if self.last_loss else ""
            raise BackendError(
                f"no worker for {duration(limit)}{why}: what is finished is kept, and the same command goes "
                "on from there; --wait-for-workers sets how long to wait"
            )
        until = f", for at most {duration(limit)} (--wait-for-workers)" if limit else ""
        self.state.waiting = (
            f"no worker lives, waiting for one{until}" if self.last_loss else "starting workers"
        )

    def _drain(self, note: str) -> None:
        if not self.draining:
            self.draining = True
            self.state.note = note
            self.watching.note("draining", why=note)
            self.scheduler.drain()

    def _conclude(self) -> None:
        if self.disk_full:
            raise StoreError(
                f"stopped: {self.disk_full}; what is finished in {self.store.shown} is kept, and once "
                "there is room the same command goes on from there"
            )
        stopped = self.scheduler.waiting > 0
        hopeless = self.state.units_failed > self.allowed_failures
        self.state.state = "interrupted" if stopped and not hopeless else "finished"
        if self.told_by:
            self.state.note = f"stopped by {self.told_by}" if stopped else ""

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM once: finish what is running. Twice: stop now.

        Also for what comes after the loop, which is soon through.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            # Anywhere, also where a lock is held that draining would wait for: so that is left to the loop.
            self.signals += 1
            if self.signals > 1:
                raise KeyboardInterrupt
            if not self.over:
                self.told_by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
                self.state.note = self._told

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def _told(self) -> str:
        return f"{self.told_by}: finishing what is running; once more stops now"


def _work(unit: Unit) -> dict[str, int]:
    """How much of which kind of work, as `Estimate` has them."""
    if isinstance(unit, Training):
        return {unit.victim.preparation: gradients(unit.victim.defence)}
    kind = transfer_kind(unit.attack) if isinstance(unit, Transfer) else unit.attack.attack_id
    return {kind: unit.work}
