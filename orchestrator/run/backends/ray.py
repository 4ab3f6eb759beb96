"""A pool of Ray actors, each a `workers.worker.Worker`.

Retries, attempts and affinity are the scheduler's: Ray restarts nothing here, and workers are placed here,
since only machines that have been looked at may have one. What Ray knows is who died, and whether a machine
died with it.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` uploads the whole folder

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.errors import BackendError, ClusterLostError
from orchestrator.run.backends import Event, Finished, Lost, Notice, Pool, Ready
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.backends.ray_asking import Asking, as_ray_says
from orchestrator.run.backends.ray_cluster import Cluster, Node
from orchestrator.run.backends.ray_machines import Machines
from orchestrator.run.backends.ray_preflight import Preflight
from orchestrator.run.backends.shapes import Shape, carried, described, shapes
from orchestrator.run.backends.shipping import owned_by_job, packed
from orchestrator.run.options import RunOptions
from workers.code import this_code
from workers.machine import physical_memory
from workers.runtime import MissingGpuError
from workers.storage import first_line
from workers.unit import Failed, Unit, WorkerSettings
from workers.worker import Worker, WorkerInfo

_MAX_RESTARTS = 3
_LOOK_SECONDS = 1.0  # between two looks at the machines
_SOON_SECONDS = 0.2  # while Ray has yet to learn what a worker that has ended leaves free
_START_SECONDS = 600.0  # that a worker may take: TensorFlow's import over a network is slow


@dataclass
class _Actor:
    handle: Any
    kind: Shape
    node: Node
    since: float
    ready: bool = False
    unit: Unit | None = None


class RayBackend:
    """As many workers as asked for, or as the machines carry by now; never more than there is work for.

    Machines that join are looked at, then used; what there is no work for any more is let go. A cluster with
    an autoscaler is asked for machines where a number of workers was asked for. What workers and Ray itself
    print goes to `logs`.
    """

    def __init__(
        self, options: RunOptions, settings: WorkerSettings, *, most: int, logs: Path | None
    ) -> None:
        self.options = options
        self.settings = settings
        self.most = most
        self.logs = logs
        self._kinds: list[Shape] = []
        self._actors: dict[str, _Actor] = {}
        self._calls: dict[Any, str] = {}  # what was called -> the worker it was called on
        self._events: deque[Event] = deque()
        self._started = 0
        self._useful, self._startable = most, 1
        self._cluster = Cluster(options.address)
        self._remote: Any = ray.remote(max_restarts=0, max_task_retries=0)(Worker)
        self._machines: Machines
        self._asking: Asking
        self._next_look = self._removed = 0.0
        self._said = ""  # of the pool
        self._restarts = 0
        self._down = False  # Ray on this machine is to be started anew
        self._quiet = ExitStack()

    def start(self) -> None:
        # Nothing is written into the output folder before it is known that the machines carry the pool;
        # what goes wrong until then is said by the exception.
        self._quiet.enter_context(stderr_to(Path(os.devnull)))
        self._connect()
        nodes = self._cluster.nodes()
        self._kinds = shapes(self.options, [node.resources for node in nodes])
        self._asking = Asking(self._cluster, self._kinds[0])
        capacity = sum(carried(node.resources, self._kinds) for node in nodes)
        self._ensure(capacity, nodes)
        local = self._cluster.local
        limit = self.options.memory_per_worker
        if local and not limit:
            # A worker that outgrows its share retires, so that Ray's memory monitor need not kill one.
            limit = int(0.8 * physical_memory() / capacity)
        self.settings = replace(self.settings, memory_limit=self.settings.memory_limit or limit)
        preflight = None if local else Preflight(self.settings, _remedy())
        self._machines = Machines(self._cluster, self._kinds, preflight)
        self._events.extend(self._machines.look_at_all())
        self._ensure_hope()
        if not local:
            self._ensure(self._machines.capacity, nodes, left_out=self._machines.left_out)
        if self.logs:
            self._quiet.enter_context(stderr_to(self.logs / "driver.log"))
        self._adjust()

    def submit(self, worker: str, unit: Unit) -> None:
        actor = self._actors[worker]
        actor.unit = unit
        self._calls[actor.handle.run.remote(unit)] = worker

    def demand(self, useful: int, startable: int) -> None:
        self._useful, self._startable = useful, startable

    def wait(self, timeout: float) -> list[Event]:
        self._look_after_ray()
        if time.monotonic() >= self._next_look:
            self._adjust()
        if not self._calls and not self._events:  # every worker is idle
            time.sleep(timeout)
        elif not self._events:
            calls = list(self._calls)
            done, rest = ray.wait(calls, num_returns=1, timeout=timeout)
            if done and rest:  # whatever else has ended by now, without waiting for it
                more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
                done += more
            for call in done:
                self._collect(call)
        events = list(self._events)
        self._events.clear()
        return events

    def kill(self, worker: str) -> None:
        self._remove(worker)

    def stop(self) -> None:
        for worker in list(self._actors):
            self._remove(worker)
        if hasattr(self, "_asking"):
            self._asking.stop()
        self._cluster.close()
        self._quiet.close()

    # -- what there is room and work for ------------------------------------------------------------------

    def _connect(self) -> None:
        if self._cluster.local or owned_by_job():
            if self.options.ship and not self._cluster.local:
                raise BackendError(
                    "--ship has no meaning in a Ray job, which has its own way to bring files to machines: "
                    "ray job submit --working-dir"
                )
            self._cluster.connect()
            return
        with packed(self.settings, self.options.ship) as shipment:
            self._cluster.connect(shipment.folder)
        # What was sent goes before what a machine has at the same place as this one.
        path = (*shipment.python_path, *self.settings.python_path)
        self.settings = replace(self.settings, python_path=path)

    def _ensure(self, capacity: int, nodes: list[Node], left_out: Sequence[str] = ()) -> None:
        """BackendError where the machines do not carry what was asked for, and nobody could bring others."""
        least, kind = self.options.least_workers, self._kinds[0]
        if capacity >= max(1, least) or (self.options.asked_workers and self._asking.possible(patient=True)):
            return
        if not capacity:
            there = ", ".join(sorted({described(node.resources, kind) for node in nodes}))
            raise BackendError(f"no machine has {kind} for a worker; there are: {there or 'no machines'}")
        option = "--workers" if self.options.workers else "--min-workers"
        raise BackendError(
            f"{least} workers of {kind} each do not fit: the machines carry {capacity}; "
            f"ask for fewer with {option}, or for less with --cpus-per-worker and --gpus-per-worker"
            + "".join(f"\n  left out is {reason}" for reason in left_out)
        )

    def _ensure_hope(self) -> None:
        """BackendError where no worker lives, and none will."""
        if any(actor.ready for actor in self._actors.values()):
            return
        reasons = self._machines.hopeless
        if reasons and not (self.options.asked_workers and self._asking.possible()):
            raise BackendError("\n  ".join(["workers do not start:", *reasons]))

    def _ensure_more(self) -> None:
        """The autoscaler has no machine for a worker: BackendError where none is there either."""
        what = f"the cluster's autoscaler has no kind of machine with {self._kinds[0]}"
        if not self._machines.capacity:
            raise BackendError(f"no machine carries a worker, and {what}")
        self._events.append(Notice(f"warning: {what}: the pool stays as large as its machines"))

    def _adjust(self) -> None:
        """Look at the machines; then let go, start, and ask for, as many workers as there is work for."""
        now = time.monotonic()
        self._next_look = now + (_SOON_SECONDS if now - self._removed < _LOOK_SECONDS else _LOOK_SECONDS)
        if self._down:
            return
        self._events.extend(self._machines.look())
        self._ensure_hope()
        self._end_late_starts()
        options = self.options
        most = min(self.most, options.workers or options.max_workers or self.most)
        size = min(most, max(self._useful, options.least_workers))
        self._let_go(len(self._actors) - size)
        self._fill(size)
        starting = sum(not actor.ready for actor in self._actors.values())
        lacking = max(self._startable - starting, options.least_workers - len(self._actors))
        room = min(size, options.asked_workers) - len(self._actors)
        refused = self._asking.refused
        self._asking.ask(min(room, lacking), ready=len(self._actors) - starting)
        if self._asking.refused and not refused:
            self._ensure_more()
        self._say()

    def _let_go(self, count: int) -> None:
        """So many that have nothing to do: those that still start, then those on machines least busy, so that
        whole machines come free."""
        busy = Counter(actor.node.node_id for actor in self._actors.values() if actor.unit)
        idle = [worker for worker, actor in self._actors.items() if not actor.unit]
        idle.sort(key=lambda worker: (self._actors[worker].ready, busy[self._actors[worker].node.node_id]))
        for worker in idle[: max(count, 0)]:
            ready = self._actors[worker].ready
            self._remove(worker)
            if ready:
                self._events.append(Lost(worker, "there was nothing left for it to do", charged=False))

    def _fill(self, size: int) -> None:
        """Start workers wherever there is room, the first kind first, on the machines with the most room."""
        free = self._free()
        for kind in self._kinds:
            nodes = {node.node_id: node for node in self._machines.good(kind)}
            while len(self._actors) < size:
                fits = {node_id: kind.fits(free[node_id]) for node_id in nodes}
                chosen = max(fits, key=lambda node_id: fits[node_id], default="")
                if not chosen or not fits[chosen]:
                    break
                self._start(kind, nodes[chosen])
                free[chosen] = kind.take(free[chosen])

    def _free(self) -> dict[str, dict[str, float]]:
        """By machine, what neither our workers nor others' use.

        What a machine says is free lags behind our own starts and kills, by some tenths of a second.
        """
        ours: dict[str, Any] = {}
        for actor in self._actors.values():
            ours.setdefault(actor.node.node_id, Counter()).update(actor.kind.needs)
        free = {}
        for node in (node for kind in self._kinds for node in self._machines.good(kind)):
            taken = ours.get(node.node_id, Counter())
            free[node.node_id] = {
                name: amount
                - taken[name]
                # Less than nothing, while numbers lag behind. On this machine's own Ray there is nobody else.
                - (0.0 if self._cluster.local else max(0.0, amount - node.free.get(name, 0.0) - taken[name]))
                for name, amount in node.resources.items()
            }
        return free

    def _start(self, kind: Shape, node: Node) -> None:
        self._started += 1
        worker = f"worker-{self._started}"
        log = str(self.logs / f"{worker}.log") if self.logs else None
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        settings = replace(self.settings, cpus=kind.cpus, gpus=kind.gpus)
        made = self._remote.options(**as_ray_says(kind), scheduling_strategy=there)
        handle = made.remote(settings, code=this_code(), log=log)
        self._actors[worker] = _Actor(handle, kind, node, time.monotonic())
        self._calls[handle.ready.remote()] = worker

    def _end_late_starts(self) -> None:
        for worker, actor in list(self._actors.items()):
            if not actor.ready and time.monotonic() - actor.since > _START_SECONDS:
                self._remove(worker)
                late = f"a worker was not ready after {_START_SECONDS:.0f} s{self._log_hint(worker)}"
                self._start_failed(actor, late)

    def _say(self) -> None:
        """How large the pool is, where that can change."""
        if self._cluster.local:
            return
        ready = sum(actor.ready for actor in self._actors.values())
        text = self._machines.told(ready, len(self._actors), asked=self._asking.count)
        if text != self._said:
            self._said = text
            self._events.append(Pool(text))

    # -- what happens to workers --------------------------------------------------------------------------

    def _look_after_ray(self) -> None:
        """Start Ray anew where it has died on this machine; ClusterLostError where a cluster has."""
        if self._down:
            self._down = False
            self._cluster.close()
            self._cluster.connect()
            self._next_look = 0.0
            return
        reason = self._cluster.lost()
        if not reason:
            return
        resumable = "what is finished is kept, and the same command goes on from there"
        if not self._cluster.local:
            raise ClusterLostError(f"the cluster was lost: {reason}; {resumable}")
        if self._restarts == _MAX_RESTARTS:
            raise BackendError(
                f"Ray on this machine died {_MAX_RESTARTS + 1} times, the last time as {reason}; {resumable}"
            )
        self._restarts += 1
        self._down = True  # and started at the next call: it takes seconds, and this should be said before
        count = f"{self._restarts} of at most {_MAX_RESTARTS} times"
        self._events.append(Notice(f"Ray on this machine died ({reason}): started anew, {count}"))
        lost = "Ray on this machine died"
        self._events.extend(Lost(worker, lost, charged=False) for worker in self._actors)
        self._actors.clear()
        self._calls.clear()

    def _collect(self, call: Any) -> None:
        worker = self._calls.pop(call, None)
        if worker is None:  # its worker was removed a moment ago
            return
        actor = self._actors[worker]
        try:
            value = ray.get(call)
        except RayError as error:
            self._lost(worker, actor, error)
            return
        if isinstance(value, WorkerInfo):
            self._machines.started(actor.node.node_id, actor.kind)
            actor.ready = True
            self._events.append(Ready(worker, value.host, strong=actor.kind is self._kinds[0]))
            self._say()
            return
        actor.unit = None
        self._events.append(Finished(worker, value))
        if value.retire:
            self._remove(worker)
            self._events.append(Lost(worker, "it held more memory than its share", charged=False))

    def _lost(self, worker: str, actor: _Actor, error: RayError) -> None:
        reason = first_line(error)
        if isinstance(error, RayTaskError) and actor.unit is not None:
            # The worker lives: the unit or its report could not be sent.
            report = Failed(unit_id=actor.unit.unit_id, error=reason, traceback=str(error))
            actor.unit = None
            self._events.append(Finished(worker, report))
            return
        if self._cluster.lost():
            return  # which ends every worker, and is seen to at the next call
        # Of a process that dies on a live machine Ray knows at once; a machine that dies is unreachable for
        # many seconds before Ray gives it up. An actor that is only unreachable may still be running its
        # unit: it must be dead before the unit is given to another.
        unreachable = isinstance(error, ActorUnavailableError)
        machine_lost = unreachable or actor.node.node_id not in self._cluster.alive()
        self._remove(worker, kill=unreachable or not machine_lost)
        preempted = bool(getattr(error, "preempted", False))
        why = "its machine was lost" if machine_lost else f"its process died ({type(error).__name__})"
        lost = Lost(worker, why + self._log_hint(worker), charged=not (machine_lost or preempted))
        self._events.append(lost)
        if not actor.ready and not machine_lost:
            raised = getattr(error, "cause", None)
            cause = _last_line(f"{type(raised).__name__}: {raised}" if raised else str(error))
            lasting = isinstance(raised, MissingGpuError)
            hint = self._cluster.token_hint(cause) + self._log_hint(worker)
            self._start_failed(actor, cause + hint, for_good=lasting)

    def _start_failed(self, actor: _Actor, cause: str, *, for_good: bool = False) -> None:
        """Leave a machine out where none starts; BackendError when there is no other and no worker lives."""
        left_out = self._machines.start_failed(actor.node.node_id, actor.kind, cause, for_good=for_good)
        self._events.extend(left_out)
        self._ensure_hope()

    def _log_hint(self, worker: str) -> str:
        return f"; its output is in {self.logs / worker}.log" if self.logs else ""

    def _remove(self, worker: str, *, kill: bool = True) -> None:
        """The pool is filled again at the next call of `wait`."""
        actor = self._actors.pop(worker)
        self._calls = {call: name for call, name in self._calls.items() if name != worker}
        self._next_look, self._removed = 0.0, time.monotonic()
        # Without an answer, killing one that has not started blocks. Ray ends what nobody holds any more.
        if kill and self._cluster.answers():
            ray.kill(actor.handle, no_restart=True)


def _remedy() -> str:
    if owned_by_job():
        return "submit the job with its working folder (--working-dir), or install the same everywhere"
    return "install the same everywhere"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text
