"""Many workers of one thread, or one worker of many threads: real victims, real attacks."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.reading import Reading, child, median_ratio
from benchmarks.startup import MAIN
from orchestrator.store.folder import Store
from workers.datasets import DATA_VARIABLE
from workers.machine import available_cpus

WORK: Mapping[str, Mapping[str, Any]] = {
    "small_cnn": {
        "models": ["small_cnn"],
        "train": {"epochs": 1, "examples": 6000},
        "examples": 1000,
        "slice": 125,
    },
    "wide_cnn": {
        "models": ["wide_cnn"],
        "train": {"epochs": 1, "examples": 4000},
        "examples": 400,
        "slice": 50,
    },
    "wide_cnn of width 128": {
        "models": [{"name": "wide_cnn", "width": 128}],
        "train": {"epochs": 1, "examples": 500},
        "examples": 48,
        "slice": 12,
    },
}
"""Enough of each network that starting up is not what is measured."""


def measure(*, repeats: int = 3, work: Mapping[str, Mapping[str, Any]] = WORK) -> list[Reading]:
    """Sweeps of two victims of each network in `work`, with training, the layouts in turn.

    MNIST where the data folder that the environment's ROBUSTSWEEP_DATA names has it, else the digits.
    """
    folder = os.environ.get(DATA_VARIABLE)
    dataset = "mnist" if folder and (Path(folder) / "mnist.npz").exists() else "digits"
    return [reading for model in work for reading in _layouts(dataset, model, work[model], repeats)]


def _layouts(dataset: str, model: str, work: Mapping[str, Any], repeats: int) -> list[Reading]:
    cpus = available_cpus()
    layouts = {"many": (cpus, 1), "one": (1, cpus)}
    read: dict[str, dict[str, list[float]]] = {"sweep": {}, "evaluation": {}}
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / "layout.yaml"
        grid.write_text(yaml.safe_dump(_grid(dataset, work)))
        for i in range(repeats):
            for name, shape in layouts.items():
                seconds = _run(grid, Path(folder) / f"{i}-{name}", *shape)
                for what, value in seconds.items():
                    read[what].setdefault(name, []).append(value)
    readings = []
    for what, by_layout in read.items():
        for name, (workers, threads) in layouts.items():
            readings.append(
                Reading(
                    what=f"{model} on {dataset}, {what}: workers × threads {workers} × {threads}",
                    value=statistics.median(by_layout[name]),
                    unit="s",
                )
            )
        ratio = median_ratio(by_layout["one"], by_layout["many"])
        readings.append(
            Reading(what=f"{model} on {dataset}, {what}: one worker / {cpus} workers", value=ratio)
        )
    return readings


def _grid(dataset: str, work: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": "layout",
        "datasets": [dataset],
        "attacks": ["fgsm", {"name": "bim", "steps": 10}],
        "epsilons": [0.05, 0.1, 0.2],
        "seeds": [0, 1],
        **work,
    }


def _run(grid: Path, folder: Path, workers: int, threads: int) -> dict[str, float]:
    """Seconds of the whole command; and of the evaluation units, shared among the workers."""
    folder.mkdir()
    output, log = folder / "output", folder / "log"
    layout = ["--workers", str(workers), "--cpus-per-worker", str(threads)]
    used = child(["-c", MAIN, "run", str(grid), "--output", str(output), *layout], log=str(log))
    if used.exit_code:
        raise RuntimeError(f"exit code {used.exit_code}: {log.read_text()}")
    shards = Store.existing(str(output)).accepted_shards().infos
    return {"sweep": used.wall_seconds, "evaluation": sum(shard.seconds for shard in shards) / workers}
