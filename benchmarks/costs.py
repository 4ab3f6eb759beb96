"""A real grid on digits: how well `plan` foretells what it takes, and what workers' time goes into."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.console import Console

from benchmarks.reading import Reading
from orchestrator.grid.load import load_grid
from orchestrator.plan.cost import Cost
from orchestrator.run.history import costs
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import Prepared, prepare
from orchestrator.run.progress import PlainProgress, SweepState
from orchestrator.run.sweep import run_sweep
from workers.shards import SETUP
from workers.unit import DEFAULT_RUNNER

WORKERS = 2

GRID = {
    "name": "costs",
    "models": ["small_cnn", "wide_cnn"],
    "datasets": ["digits"],
    "attacks": ["fgsm", "bim", "pgd", "apgd", {"name": "deepfool", "norm": "l2"}],
    "epsilons": {"linf": [0.05, 0.1, 0.2], "l2": [0.5, 1, 2]},
    "train": {"epochs": 10},
    "slice": 250,
}


def measure(
    *, few: int = 50, many: int = 500, runner: str = DEFAULT_RUNNER, backend: str = "ray"
) -> list[Reading]:
    """The grid at `few` examples; at `many`, foretold by that; with another seed, foretold by the latter."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        first, _ = _run(root / "first", few, 0, runner, backend)
        cost = _foretold(root / "second", many, 0, first)
        second, state = _run(root / "second", many, 0, runner, backend)
        likely = _foretold(root / "third", many, 1, second)
        third, _ = _run(root / "third", many, 1, runner, backend)
        took = [_taken(each) for each in (second, third)]
    return [
        Reading(
            what=f"hours foretold by {few} examples, for {many} / taken", value=3600 * cost.hours / took[0]
        ),
        Reading(what="cells foretold, by units of another size", value=cost.rough),
        Reading(what="hours foretold by another seed / taken", value=3600 * likely.hours / took[1]),
        Reading(what="cells foretold, by victims that are alike", value=likely.alike),
        Reading(what="cells without a basis", value=cost.unknown + likely.unknown, at_most=0),
        *_efficiency(state),
    ]


def _foretold(folder: Path, examples: int, seed: int, by: Prepared) -> Cost:
    """By one sweep, with nothing in the cache."""
    prepared = _prepared(folder, examples, seed)
    return costs(prepared, cache=str(folder / "victims"), others=[by.store])[0]


def _taken(prepared: Prepared) -> float:
    """Seconds that all units of a sweep took, trainings included."""
    trained = sum(float(pin.manifest.get("seconds", 0.0)) for pin in prepared.store.pins().values())
    return trained + sum(info.seconds for info in prepared.store.accepted_shards().infos)


def _efficiency(state: SweepState) -> Iterator[Reading]:
    """Of the time that workers were there: in kernels, in loading and tracing, and in nothing of these."""
    held = 3600 * sum(state.usage.hours(state.seconds).values())
    setup = sum(state.phases.get(phase, 0.0) for phase in SETUP if phase != "train")
    kernels = sum(state.phases.values()) - setup
    yield Reading(what="workers' time, all of it", value=held, unit="s")
    yield Reading(what="kernels ÷ (wall × workers)", value=kernels / held, at_least=0.85)
    yield Reading(what="loading and tracing ÷ (wall × workers)", value=setup / held)


def _prepared(folder: Path, examples: int, seed: int) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID | {"examples": examples, "seeds": [seed]}))
    return prepare(load_grid(str(path)), str(folder / "output"))


def _run(folder: Path, examples: int, seed: int, runner: str, backend: str) -> tuple[Prepared, SweepState]:
    prepared = _prepared(folder, examples, seed)
    options = RunOptions(
        output=str(folder / "output"),
        cache_dir=str(folder / "victims"),
        backend=backend,
        workers=WORKERS if backend == "ray" else None,
        cpus_per_worker=1,
        runner=runner,
    )
    summary = run_sweep(prepared, options, PlainProgress(Console(file=io.StringIO())))
    if summary.exit_code:
        raise RuntimeError(f"exit code {summary.exit_code}: {[one.error for one in summary.failures]}")
    return prepared, summary.state
