"""What a worker takes of its machine, and how many of which kind a machine has room for: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.run.options import RunOptions

Amounts = Mapping[str, float]
"""Resources of a machine by Ray's names: CPU, GPU, memory (bytes), and whatever a cluster has of its own."""

_TINY = 1e-6  # resources are sums of fractions


@dataclass(frozen=True, slots=True)
class Shape:
    """What one worker takes."""

    kind: Literal["gpu", "cpu"]
    cpus: int
    gpus: float = 0.0
    memory: int = 0  # bytes that Ray keeps for it; 0: none in particular
    resources: tuple[tuple[str, float], ...] = ()  # a cluster's own

    @property
    def needs(self) -> dict[str, float]:
        """By Ray's names."""
        own = {
            "CPU": float(self.cpus),
            "GPU": self.gpus,
            "memory": float(self.memory),
            **dict(self.resources),
        }
        return {name: amount for name, amount in own.items() if amount}

    def fits(self, free: Amounts) -> int:
        """How many of them what is free has room for."""
        return max(0, int(min(free.get(name, 0.0) / need + _TINY for name, need in self.needs.items())))

    def take(self, free: Amounts) -> dict[str, float]:
        """What is left of it."""
        needs = self.needs
        return {name: amount - needs.get(name, 0.0) for name, amount in free.items()}

    def __str__(self) -> str:
        memory = [f"{self.memory / 1e9:g} GB of memory"] if self.memory else []
        own = [f"{amount:g} {name}" for name, amount in self.resources]
        return _listed([*_counted(self.cpus, self.gpus), *memory, *own])


def shapes(options: RunOptions, machines: Sequence[Amounts]) -> list[Shape]:
    """The kinds of workers of a pool, those that come first where there is room for either first.

    A worker's share that is not asked for is what the machines suggest: a whole GPU where there are any, with
    its part of the machine's CPUs; else one CPU (`docs/performance.md` has the measurement).
    """
    cpus, gpus = options.cpus_per_worker, options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(machine.get("GPU", 0.0) >= 1 for machine in machines) else 0.0
    beside = options.use_cpus and gpus > 0
    if cpus is None:
        able = [machine for machine in machines if gpus and machine.get("GPU", 0.0) >= gpus]
        parts = [machine.get("CPU", 0.0) // (machine["GPU"] / gpus) for machine in able]
        cpus = 1 if beside else max(1, int(min(parts, default=1)))
    memory, own = options.memory_per_worker or 0, options.resources_per_worker
    first = Shape("gpu" if gpus else "cpu", cpus, gpus, memory, own)
    return [first, Shape("cpu", cpus, 0.0, memory, own)] if beside else [first]


def carried(machine: Amounts, kinds: Iterable[Shape]) -> int:
    """How many workers a machine has room for, of the first kind before the others."""
    count = 0
    for shape in kinds:
        while shape.fits(machine):
            machine = shape.take(machine)
            count += 1
    return count


def described(machine: Amounts, kind: Shape) -> str:
    """For people, what a machine has of what a worker needs: "4 CPUs and 1 GPU"."""
    memory = [f"{machine.get('memory', 0.0) / 1e9:.1f} GB of memory"] if kind.memory else []
    own = [f"{machine.get(name, 0.0):g} {name}" for name, _ in kind.resources]
    return _listed([*_counted(machine.get("CPU", 0.0), machine.get("GPU", 0.0)), *memory, *own])


def _counted(cpus: float, gpus: float) -> list[str]:
    counts = [(cpus, "CPU"), *([(gpus, "GPU")] if gpus else [])]
    return [f"{count:g} {name}{'s' if count != 1 else ''}" for count, name in counts]


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
