"""Asking a cluster for more machines: an autoscaler brings them for tasks that nobody has room for.

Such a task does nothing, and goes with the process that asked; a standing request to the autoscaler would
outlive a driver that is killed, and overwrite other people's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.run.backends.ray_cluster import Cluster
from orchestrator.run.backends.shapes import Shape

_FEW = 4  # asked for at a time; later as many as there are workers already
_MANY = 16
# After what was asked for has found room: a worker is to start there before another such task takes it again.
_PAUSE_SECONDS = 5.0
_FIRST_WORD_SECONDS = 10.0  # an autoscaler that has just started says nothing for so long


class Asking:
    """Room for so many workers of a kind is asked for, a few at a time."""

    def __init__(self, cluster: Cluster, kind: Shape) -> None:
        self._cluster = cluster
        self._kind = kind
        self._waiting: list[Any] = []
        self._task: Any = None
        self._pause_until = 0.0
        self.refused = False  # the autoscaler has no such machine

    @property
    def count(self) -> int:
        return len(self._waiting)

    def possible(self, *, patient: bool = False) -> bool:
        """Whether the cluster could bring a machine for such a worker; `patient`: it may have to wake up."""
        if self.refused:
            return False
        until = time.monotonic() + (_FIRST_WORD_SECONDS if patient else 0.0)
        while not (can := self._cluster.can_bring(lambda machine: self._kind.fits(machine) > 0)):
            if can is False or time.monotonic() >= until:
                return False
            time.sleep(0.5)
        return True

    def ask(self, count: int, *, ready: int) -> None:
        """Have room for so many asked for, no longer for more, and no more than a few at a time."""
        if self._waiting:
            found, self._waiting = ray.wait(self._waiting, num_returns=len(self._waiting), timeout=0)
            if found:
                self._pause_until = time.monotonic() + _PAUSE_SECONDS
            self.refused = self.refused or self._cluster.refuses(self._kind.needs)
        count = 0 if self.refused else min(count, _MANY, max(_FEW, ready))
        if count > len(self._waiting) and (time.monotonic() < self._pause_until or not self.possible()):
            return
        while len(self._waiting) > max(count, 0):
            self._cancel(self._waiting.pop())
        while len(self._waiting) < count:
            self._waiting.append(self._remote().remote())

    def stop(self) -> None:
        while self._waiting:
            self._cancel(self._waiting.pop())

    def _remote(self) -> Any:
        if self._task is None:
            self._task = ray.remote(max_retries=0, **as_ray_says(self._kind))(_nothing())
        return self._task

    def _cancel(self, call: Any) -> None:
        if self._cluster.answers():
            with suppress(RayError, ValueError):
                ray.cancel(call)


def as_ray_says(kind: Shape) -> dict[str, Any]:
    """What a worker takes, as options of a task or an actor."""
    needs = kind.needs
    cpus, gpus, memory = (needs.pop(name, 0.0) for name in ("CPU", "GPU", "memory"))
    return {"num_cpus": cpus, "num_gpus": gpus, "memory": int(memory) or None, "resources": needs or None}


def _nothing() -> Callable[[], None]:
    """A function that is sent by value: other machines may have no code of ours yet."""

    def nothing() -> None:
        """For an autoscaler to bring a machine."""

    return nothing
