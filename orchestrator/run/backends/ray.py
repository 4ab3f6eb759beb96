"""A pool of Ray actors, each a `workers.worker.Worker`.

Retries, attempts and affinity are the scheduler's: Ray restarts nothing here. What Ray knows is who died,
and whether a machine died with it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` uploads the whole folder

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from orchestrator.errors import BackendError, ClusterLostError
from orchestrator.run.backends import Event, Finished, Lost, Notice, Ready
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.backends.ray_cluster import Cluster, Node
from orchestrator.run.options import RunOptions
from workers.code import this_code
from workers.machine import physical_memory
from workers.unit import Failed, Unit, WorkerSettings
from workers.worker import Worker, WorkerInfo

_MAX_FAILED_STARTS = 3  # of one machine, in a row
_MAX_RESTARTS = 3


@dataclass
class _Actor:
    handle: Any
    node_id: str = ""
    unit: Unit | None = None


class RayBackend:
    """As many workers as asked for, or as the machines carry; never more than there is work for.

    A worker's share that is not asked for is what the machines suggest. What workers and Ray itself print
    goes to `logs`.
    """

    def __init__(
        self, options: RunOptions, settings: WorkerSettings, *, most: int, logs: Path | None
    ) -> None:
        self.options = options
        self.settings = settings
        self.most = most
        self.logs = logs
        self._actors: dict[str, _Actor] = {}
        self._calls: dict[Any, str] = {}  # what was called -> the worker it was called on
        self._events: deque[Event] = deque()
        self._started = 0
        self._size = 0  # workers that the pool is meant to have
        self._cluster = Cluster(options.address)
        self._restarts = 0
        self._down = False  # Ray on this machine is to be started anew
        self._failed_starts: dict[str, int] = {}  # by machine, since one there was good
        self._left_out: dict[str, str] = {}  # machine -> why no worker starts there
        self._remote: Any = None
        self._quiet = ExitStack()

    def start(self) -> None:
        # Nothing is written into the output folder before it is known that the machines carry the pool;
        # what goes wrong until then is said by the exception.
        self._quiet.enter_context(stderr_to(Path(os.devnull)))
        self._cluster.connect()
        nodes = self._cluster.nodes()
        self.settings = settings = _with_share(self.settings, self.options, nodes)
        capacity = sum(_carries(node, settings) for node in nodes)
        if not capacity:
            need = _text(settings.cpus, settings.gpus)
            largest = ", ".join(sorted({_text(node.cpus, node.gpus) for node in nodes}))
            raise BackendError(f"no machine has {need} for a worker; there are: {largest or 'no machines'}")
        workers = self.options.workers
        if workers is not None and workers > capacity:
            each = _text(settings.cpus, settings.gpus)
            raise BackendError(
                f"{workers} workers of {each} each do not fit: the machines carry {capacity}; "
                "ask for fewer with --workers, or for less with --cpus-per-worker and --gpus-per-worker"
            )
        if self._cluster.local:
            # A worker that outgrows its share retires, so that Ray's memory monitor need not kill one.
            share = int(0.8 * physical_memory() / capacity)
            self.settings = replace(settings, memory_limit=settings.memory_limit or share)
        self._remote = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(Worker)
        if self.logs:
            self._quiet.enter_context(stderr_to(self.logs / "driver.log"))
        self._size = min(workers or capacity, self.most)
        self._fill()

    def submit(self, worker: str, unit: Unit) -> None:
        actor = self._actors[worker]
        actor.unit = unit
        self._calls[actor.handle.run.remote(unit)] = worker

    def wait(self, timeout: float) -> list[Event]:
        self._look_after_ray()
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
        self._fill()

    def stop(self) -> None:
        for worker in list(self._actors):
            self._remove(worker)
        self._cluster.close()
        self._quiet.close()

    # -- inside -------------------------------------------------------------------------------------------

    def _look_after_ray(self) -> None:
        """Start Ray anew where it has died on this machine; ClusterLostError where a cluster has."""
        if self._down:
            self._down = False
            self._cluster.close()
            self._cluster.connect()
            self._fill()
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

    def _fill(self) -> None:
        """As many actors as the pool is meant to have; Ray starts them once a machine has room."""
        settings = self.settings
        others = f"!in({','.join(self._left_out)})"
        while len(self._actors) < self._size:
            self._started += 1
            worker = f"worker-{self._started}"
            log = str(self.logs / f"{worker}.log") if self.logs else None
            where = {"label_selector": {"ray.io/node-id": others}} if self._left_out else {}
            handle = self._remote.options(**where).remote(settings, code=this_code(), log=log)
            self._actors[worker] = _Actor(handle)
            self._calls[handle.ready.remote()] = worker

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
            self._failed_starts.pop(value.node_id, None)
            actor.node_id = value.node_id
            self._events.append(Ready(worker, value.host))
            return
        actor.unit = None
        self._events.append(Finished(worker, value))
        if value.retire:
            self._remove(worker)
            self._events.append(Lost(worker, "it held more memory than its share", charged=False))
            self._fill()

    def _lost(self, worker: str, actor: _Actor, error: RayError) -> None:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
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
        node_id = actor.node_id or self._cluster.node_of(actor.handle)
        nodes = {node.node_id: node for node in self._cluster.nodes()}
        machine_lost = unreachable or node_id not in nodes
        self._remove(worker, kill=unreachable or not machine_lost)
        preempted = bool(getattr(error, "preempted", False))
        why = "its machine was lost" if machine_lost else f"its process died ({type(error).__name__})"
        lost = Lost(worker, why + self._log_hint(worker), charged=not (machine_lost or preempted))
        self._events.append(lost)
        if not actor.node_id and not machine_lost:
            raised = getattr(error, "cause", None)
            cause = _last_line(f"{type(raised).__name__}: {raised}" if raised else str(error))
            self._failed_start(nodes[node_id], cause + self._log_hint(worker), [*nodes.values()])
        self._fill()

    def _failed_start(self, node: Node, cause: str, nodes: list[Node]) -> None:
        """Leave a machine out where none starts; BackendError when there is no other and no worker lives."""
        failed = self._failed_starts[node.node_id] = self._failed_starts.get(node.node_id, 0) + 1
        if failed < _MAX_FAILED_STARTS:
            return
        if node.node_id not in self._left_out:
            self._left_out[node.node_id] = f"{node.name}: {cause}"
            left = f"{node.name} is left out, as workers do not start there: {cause}"
            self._events.append(Notice(left))
        able = [each for each in nodes if _carries(each, self.settings)]
        if any(actor.node_id for actor in self._actors.values()):
            return
        if all(each.node_id in self._left_out for each in able):
            reasons = [*self._left_out.values()]
            one = len(reasons) == 1
            raise BackendError(
                f"workers do not start: {cause}" if one else "\n  ".join(["workers do not start:", *reasons])
            )

    def _log_hint(self, worker: str) -> str:
        return f"; its output is in {self.logs / worker}.log" if self.logs else ""

    def _remove(self, worker: str, *, kill: bool = True) -> None:
        actor = self._actors.pop(worker)
        self._calls = {call: name for call, name in self._calls.items() if name != worker}
        # Without an answer, killing one that has not started blocks. Ray ends what nobody holds any more.
        if kill and self._cluster.answers():
            ray.kill(actor.handle, no_restart=True)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text


def _with_share(settings: WorkerSettings, options: RunOptions, nodes: list[Node]) -> WorkerSettings:
    """A worker's share where it was not asked for: a whole GPU where there are any, with its part of the
    machine's CPUs; else one CPU (`docs/performance.md` has the measurement)."""
    cpus, gpus = options.cpus_per_worker, options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    if cpus is None:
        parts = [node.cpus // (node.gpus / gpus) for node in nodes if gpus and node.gpus >= gpus]
        cpus = max(1, int(min(parts, default=1)))
    return replace(settings, cpus=cpus, gpus=gpus)


def _carries(node: Node, settings: WorkerSettings) -> int:
    """How many workers a machine has room for."""
    gpus = settings.gpus
    return int(min(node.cpus // settings.cpus, node.gpus / gpus if gpus else node.cpus))


def _text(cpus: float, gpus: float) -> str:
    text = f"{cpus:g} CPU{'s' if cpus != 1 else ''}"
    return f"{text} and {gpus:g} GPU{'s' if gpus != 1 else ''}" if gpus else text
