"""Whole sweeps of units that cost next to nothing, so that what is around them can be measured."""

from __future__ import annotations

import io
import statistics
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console

from orchestrator.grid.entries import Grid
from orchestrator.grid.load import load_grid
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import prepare
from orchestrator.run.progress import PlainProgress, SweepState
from orchestrator.run.sweep import run_sweep
from workers.machine import resident_bytes

NOOP = "tests.support.runners:Noop"
PUBLISHER = "benchmarks.runners:Publisher"


def write_grid(
    folder: Path, *, victims: int = 1, attacks: int = 1, epsilons: int = 3, examples: int, size: int = 1
) -> Grid:
    """A grid of victims × attacks × examples / size evaluation units; there are 500 examples to be had."""
    grid = {
        "name": "benchmark",
        "models": ["small_cnn"],
        "datasets": ["digits"],
        "attacks": [{"name": "bim", "steps": steps} for steps in range(1, attacks + 1)],
        "epsilons": [round(i / epsilons, 6) for i in range(epsilons)],
        "seeds": list(range(victims)),
        "examples": examples,
        "slice": size,
        "keep": 0,
    }
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(grid))
    return load_grid(str(path))


@dataclass
class Recorder(PlainProgress):
    """Shows the sweep as a log would, and keeps when its units ended and what the driver held meanwhile.

    Few numbers, whatever the number of units: it must not be what grows.
    """

    every: int = 500
    console: Console = field(default_factory=lambda: Console(file=io.StringIO()))
    marks: list[tuple[int, float, float]] = field(default_factory=list)  # (units, seconds, MiB)

    def __post_init__(self) -> None:
        super().__init__(self.console)

    def show(self, state: SweepState) -> None:
        super().show(state)
        new = state.units_done - (self.marks[-1][0] if self.marks else 0)
        if new >= self.every or (new and state.units_done in (state.units, new)):
            self.marks.append((state.units_done, time.perf_counter(), resident_bytes() / 2**20))

    @property
    def rate(self) -> float:
        """Units a second, from the first that ended to the last."""
        (first, begun, _), (last, ended, _) = self.marks[0], self.marks[-1]
        return (last - first) / (ended - begun)

    def memory(self, units: int) -> float:
        """The driver's resident memory in MiB around the moment when `units` had ended: a median of three."""
        nearest = sorted(self.marks, key=lambda mark: abs(mark[0] - units))[:3]
        return statistics.median(mark[2] for mark in nearest)


def run(grid: Grid, output: Path, *, runner: str, backend: str = "ray", workers: int = 2) -> Recorder:
    """Run a grid through planner, scheduler, backend and merge; RuntimeError unless every unit reports done.

    Not the exit code: it goes by shards, and a runner that does nothing leaves none.
    """
    options = RunOptions(
        output=str(output),
        backend=backend,
        workers=workers if backend == "ray" else None,
        cpus_per_worker=1,
        runner=runner,
    )
    recorder = Recorder()
    summary = run_sweep(prepare(grid, options.output), options, recorder)
    if summary.state.units_done != summary.state.units:
        state = summary.state
        raise RuntimeError(
            f"{state.units_done} of {state.units} units done, {state.units_failed} failed: {state.failures}"
        )
    return recorder


def run_units(
    units: int, folder: Path, *, runner: str, backend: str = "ray", workers: int = 2
) -> tuple[Recorder, Path]:
    """Run `units` units of one victim, cut into as many attacks as that takes; also returns the output."""
    attacks = -(-units // 500)
    grid = write_grid(folder, attacks=attacks, examples=units // attacks)
    output = folder / uuid.uuid4().hex
    return run(grid, output, runner=runner, backend=backend, workers=workers), output
