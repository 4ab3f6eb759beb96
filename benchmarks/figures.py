"""Figures of a sweep: seconds of the command, reading included, and what it imports."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.reading import Reading, child, fresh
from benchmarks.startup import REPORTED
from benchmarks.tables import EPSILONS, fabricate

KINDS = ("curves", "heatmap", "per-class")


def measure(*, repeats: int = 3, victims: int = 5, attacks: int = 10) -> list[Reading]:
    """Of 500 cells × 500 examples, by default."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "output")
        fresh(_fabricate, folder, output, victims, attacks)
        what = f"of {victims * attacks * EPSILONS:,} cells"
        return [reading for kind in KINDS for reading in _figure(Path(folder), output, kind, what, repeats)]


def _figure(folder: Path, output: str, kind: str, what: str, repeats: int) -> list[Reading]:
    log, seconds = folder / "log", []
    for _ in range(repeats):
        log.write_text("")
        arguments = ["figure", kind, output, "-o", str(folder / f"{kind}.pdf")]
        used = child(["-c", REPORTED, *arguments], log=str(log))
        if used.exit_code:
            raise RuntimeError(f"robustsweep figure {kind} ended with {used.exit_code}: {log.read_text()}")
        seconds.append(used.cpu_seconds)
    _, *heavy = log.read_text().splitlines()[-1].split()
    return [
        Reading(what=f"figure {kind} {what}", value=statistics.median(seconds), unit="CPU s", at_most=3),
        Reading(what=f"figure {kind}: imports of TensorFlow and Ray", value=len(heavy), at_most=0),
    ]


def _fabricate(folder: str, output: str, victims: int, attacks: int) -> None:
    fabricate(folder, output, victims, attacks=attacks)
