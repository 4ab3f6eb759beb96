"""How often victims are loaded and trained: counted, not timed."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading

VICTIMS = 4
WORKERS = 2


def measure(*, units: int = 50) -> list[Reading]:
    """A grid of four victims with `units` evaluation units each, at most 500, on two workers."""
    with tempfile.TemporaryDirectory() as folder:
        grid = sweeps.write_grid(Path(folder), victims=VICTIMS, examples=units)
        output = Path(folder) / "output"
        sweeps.run(grid, output, runner="benchmarks.runners:Loader", workers=WORKERS)
        loaded, trained = (_by_victim(output / name) for name in ("loaded", "trained"))
    what = f"{VICTIMS} victims, {WORKERS} workers"
    return [
        Reading(
            what=f"{what}: most workers that one victim was loaded into",
            value=max(loaded.values()),
            at_least=1,
            at_most=2,
        ),
        Reading(what=f"{what}: loads in all", value=loaded.total(), at_least=VICTIMS),
        Reading(what=f"{what}: victims trained", value=len(trained), at_least=VICTIMS),
        Reading(what=f"{what}: trainings in all", value=trained.total(), at_most=VICTIMS),
    ]


def _by_victim(folder: Path) -> Counter[str]:
    return Counter(path.stem for path in folder.iterdir())
