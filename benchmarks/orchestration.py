"""What a unit costs beside its own work: scheduler, Ray, the driver's memory."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import ray

from benchmarks import sweeps
from benchmarks.reading import Reading, alternate, fresh, median_ratio
from orchestrator.run.backends.ray_local import kept_to_ourselves, read_settings

WORKERS = 2


class Idle:
    def nothing(self) -> None:
        """A call's bare cost."""


def measure(
    *, units: int = 2000, many: int = 20_000, repeats: int = 3, backend: str = "ray"
) -> list[Reading]:
    """Rates over at least `units` units, memory up to `many`; both are multiples of 10."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        return [
            *_rates(root, units, repeats, backend),
            *_memory(root, units, many, backend),
        ]


def _rates(root: Path, units: int, repeats: int, backend: str) -> list[Reading]:
    """No-op units through the whole path, beside bare calls of the same Ray in the same process."""
    ways = {
        "sweep": lambda: (
            sweeps.run_units(units, root, runner=sweeps.NOOP, backend=backend, workers=WORKERS)[0].rate
        ),
        "Ray": lambda: bare_ray_rate(units),
    }
    read = alternate(ways, repeats=repeats)
    return [
        Reading(
            what=f"units that do nothing, {WORKERS} workers",
            value=statistics.median(read["sweep"]),
            unit="units/s",
            at_least=300,
        ),
        Reading(
            what="bare Ray, one call outstanding per actor",
            value=statistics.median(read["Ray"]),
            unit="calls/s",
        ),
        Reading(what="sweep / bare Ray", value=median_ratio(read["sweep"], read["Ray"])),
    ]


def bare_ray_rate(calls: int) -> float:
    """Calls a second of actor methods that do nothing, each actor with one call outstanding."""
    # As a sweep does; by itself Ray would leave its token's mode behind, to all that this process does later.
    with kept_to_ourselves() as options:
        ray.init("local", num_cpus=WORKERS, log_to_driver=False, logging_level=logging.ERROR, **options)
    try:
        remote: Any = ray.remote(num_cpus=1)(Idle)
        actors = [remote.remote() for _ in range(WORKERS)]
        ray.get([actor.nothing.remote() for actor in actors])
        begun = time.perf_counter()
        running: dict[Any, Any] = {actor.nothing.remote(): actor for actor in actors}
        for _ in range(calls):
            (done,), _ = ray.wait(list(running), num_returns=1)
            actor = running.pop(done)
            ray.get(done)
            running[actor.nothing.remote()] = actor
        return calls / (time.perf_counter() - begun)
    finally:
        ray.shutdown()
        read_settings()


def _memory(root: Path, units: int, many: int, backend: str) -> list[Reading]:
    """In a new process for each number of units."""
    few, _ = fresh(_driver_memory, str(root), units, units, backend)
    most, early = fresh(_driver_memory, str(root), many, units, backend)
    return [
        Reading(what=f"driver memory after {units:,} units", value=few, unit="MiB"),
        Reading(what=f"driver memory after {many:,} units", value=most, unit="MiB"),
        Reading(what=f"{many:,} units / {units:,} units", value=most / few, at_most=1.1),
        Reading(what=f"the same, both within the run of {many:,}", value=most / early, at_most=1.1),
    ]


def _driver_memory(root: str, units: int, early: int, backend: str) -> tuple[float, float]:
    """The driver's resident memory in MiB when all units, and when the first `early`, had ended."""
    grid = sweeps.write_grid(
        Path(root), victims=10, attacks=max(1, units // 5000), examples=min(500, units // 10)
    )
    output = Path(root) / uuid.uuid4().hex
    recorder = sweeps.run(grid, output, runner=sweeps.NOOP, backend=backend, workers=WORKERS)
    return recorder.memory(units), recorder.memory(early)
