"""A report of a sweep: seconds of the command as a person waits for it, the file's size, what it imports."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.reading import Reading, child, fresh
from benchmarks.startup import REPORTED
from benchmarks.tables import EPSILONS, fabricate


def measure(*, repeats: int = 3, victims: int = 5, large: int = 20) -> list[Reading]:
    """Of `victims` × 100 cells × 500 examples, 10 attacks at 10 epsilons; and of `large` × 1,000 cells."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            *_report(Path(folder) / "small", victims, 10, repeats, seconds=10, size=10),
            *(_report(Path(folder) / "large", large, 100, 1) if large else ()),
        ]


def _report(
    folder: Path,
    victims: int,
    attacks: int,
    repeats: int,
    *,
    seconds: float | None = None,
    size: float | None = None,
) -> list[Reading]:
    folder.mkdir()
    output, page, log = str(folder / "output"), folder / "page.html", folder / "log"
    fresh(_fabricate, str(folder), output, victims, attacks)
    taken = []
    for _ in range(repeats):
        log.write_text("")
        used = child(["-c", REPORTED, "report", output, "-o", str(page)], log=str(log))
        if used.exit_code:
            raise RuntimeError(f"robustsweep report ended with exit code {used.exit_code}: {log.read_text()}")
        taken.append(used.wall_seconds)
    _, *heavy = log.read_text().splitlines()[-1].split()
    what = f"report of {victims * attacks * EPSILONS:,} cells"
    return [
        Reading(what=f"{what}, never read before", value=taken[0], unit="s", at_most=seconds),
        Reading(what=f"{what}, again", value=statistics.median(taken), unit="s", at_most=seconds),
        Reading(what=f"{what}: the file", value=page.stat().st_size / 1e6, unit="MB", at_most=size),
        Reading(what=f"{what}: imports of TensorFlow and Ray", value=len(heavy), at_most=0),
    ]


def _fabricate(folder: str, output: str, victims: int, attacks: int) -> None:
    fabricate(folder, output, victims, attacks=attacks)
