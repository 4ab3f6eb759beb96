"""A pool of Ray actors, each a `workers.worker.Worker`.

Retries, attempts and affinity are the scheduler's: Ray restarts nothing here. What Ray knows is who died,
and whether a machine died with it.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` uploads the whole folder

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from orchestrator.errors import BackendError
from orchestrator.run.backends import Event, Finished, Lost, Ready
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.options import RunOptions
from workers.code import this_code
from workers.machine import available_cpus, physical_memory
from workers.unit import Failed, Unit, WorkerSettings
from workers.worker import Worker, WorkerInfo

# Actors exchange only units and reports: Ray's default store would claim a third of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_MAX_FAILED_STARTS = 3


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
        self._failed_starts = 0
        self._remote: Any = None
        self._quiet = ExitStack()

    def start(self) -> None:
        # Nothing is written into the output folder before it is known that the machines carry the pool;
        # what goes wrong until then is said by the exception.
        self._quiet.enter_context(stderr_to(Path(os.devnull)))
        self._connect()
        self.settings = settings = _with_share(self.settings, self.options)
        capacity = _capacity(settings.cpus, settings.gpus)
        if not capacity:
            need = _text(settings.cpus, settings.gpus)
            largest = ", ".join(sorted({_text(*node) for node in _nodes()}))
            raise BackendError(f"no machine has {need} for a worker; there are: {largest or 'no machines'}")
        workers = self.options.workers
        if workers is not None and workers > capacity:
            each = _text(settings.cpus, settings.gpus)
            raise BackendError(
                f"{workers} workers of {each} each do not fit: the machines carry {capacity}; "
                "ask for fewer with --workers, or for less with --cpus-per-worker and --gpus-per-worker"
            )
        if self.options.address == "local":
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
        for _ in range(min(workers or capacity, self.most)):
            self._spawn()

    def submit(self, worker: str, unit: Unit) -> None:
        actor = self._actors[worker]
        actor.unit = unit
        self._calls[actor.handle.run.remote(unit)] = worker

    def wait(self, timeout: float) -> list[Event]:
        if not self._calls:  # every worker is idle
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
        self._spawn()

    def stop(self) -> None:
        for worker in list(self._actors):
            self._remove(worker)
        ray.shutdown()
        self._quiet.close()

    # -- inside -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self.options.address
        if address == "local":
            options |= {
                "num_cpus": available_cpus(),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        try:
            ray.init(address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BackendError(f"cannot reach Ray at --address {address}: {reason}") from None
        self._quiet.enter_context(_ray_prints_to_stderr())

    def _spawn(self) -> None:
        self._started += 1
        worker = f"worker-{self._started}"
        log = str(self.logs / f"{worker}.log") if self.logs else None
        handle = self._remote.remote(self.settings, code=this_code(), log=log)
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
            self._failed_starts = 0
            actor.node_id = value.node_id
            self._events.append(Ready(worker, value.host))
            return
        actor.unit = None
        self._events.append(Finished(worker, value))
        if value.retire:
            self._remove(worker)
            self._events.append(Lost(worker, "it held more memory than its share", charged=False))
            self._spawn()

    def _lost(self, worker: str, actor: _Actor, error: RayError) -> None:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, RayTaskError) and actor.unit is not None:
            # The worker lives: the unit or its report could not be sent.
            report = Failed(unit_id=actor.unit.unit_id, error=reason, traceback=str(error))
            actor.unit = None
            self._events.append(Finished(worker, report))
            return
        if not actor.node_id:  # it never became ready
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                cause = str(getattr(error, "cause", None) or error).strip()
                raise BackendError(f"workers do not start: {_last_line(cause)}{self._log_hint(worker)}")
        # Of a process that dies on a live machine Ray knows at once; a machine that dies is unreachable for
        # many seconds before Ray gives it up. An actor that is only unreachable may still be running its
        # unit: it must be dead before the unit is given to another.
        unreachable = isinstance(error, ActorUnavailableError)
        machine_lost = unreachable or actor.node_id not in _live_node_ids()
        self._remove(worker, kill=unreachable or not machine_lost)
        preempted = bool(getattr(error, "preempted", False))
        why = "its machine was lost" if machine_lost else f"its process died ({type(error).__name__})"
        lost = Lost(worker, why + self._log_hint(worker), charged=not (machine_lost or preempted))
        self._events.append(lost)
        self._spawn()

    def _log_hint(self, worker: str) -> str:
        return f"; its output is in {self.logs / worker}.log" if self.logs else ""

    def _remove(self, worker: str, *, kill: bool = True) -> None:
        actor = self._actors.pop(worker)
        self._calls = {call: name for call, name in self._calls.items() if name != worker}
        if kill:
            ray.kill(actor.handle, no_restart=True)


@contextmanager
def _ray_prints_to_stderr() -> Iterator[None]:
    """Ray prints on the driver's standard output whenever a worker dies, with no setting against it.

    AttributeError, rather than a garbled display, when another version of Ray has no such function.
    """
    module: Any = ray._private.worker
    before = module.print_to_stdstream

    def to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        os.write(2, "".join(f"{line}\n" for line in data["lines"]).encode())

    module.print_to_stdstream = to_stderr
    try:
        yield
    finally:
        module.print_to_stdstream = before


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else text


def _nodes() -> list[tuple[float, float]]:
    """CPUs and GPUs of each live machine."""
    return [
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _live_node_ids() -> set[str]:
    return {str(node["NodeID"]) for node in ray.nodes() if node["Alive"]}


def _with_share(settings: WorkerSettings, options: RunOptions) -> WorkerSettings:
    """A worker's share where it was not asked for: a whole GPU where there are any, with its part of the
    machine's CPUs; else one CPU (`docs/performance.md` has the measurement)."""
    nodes, cpus, gpus = _nodes(), options.cpus_per_worker, options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node_gpus >= 1 for _, node_gpus in nodes) else 0.0
    if cpus is None:
        parts = [
            node_cpus // (node_gpus / gpus) for node_cpus, node_gpus in nodes if gpus and node_gpus >= gpus
        ]
        cpus = max(1, int(min(parts, default=1)))
    return replace(settings, cpus=cpus, gpus=gpus)


def _capacity(cpus: int, gpus: float) -> int:
    """How many workers the live machines carry."""
    return sum(
        int(min(node_cpus // cpus, node_gpus / gpus if gpus else node_cpus))
        for node_cpus, node_gpus in _nodes()
    )


def _text(cpus: float, gpus: float) -> str:
    text = f"{cpus:g} CPU{'s' if cpus != 1 else ''}"
    return f"{text} and {gpus:g} GPU{'s' if gpus != 1 else ''}" if gpus else text
