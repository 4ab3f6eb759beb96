"""A folder of many small shards, before and after `compact`: seconds of whole commands, as a person waits."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading, child
from benchmarks.startup import MAIN

EXAMPLES = 500
COUNT = "SELECT attack, epsilon, avg(success::INT) AS broken, count(*) AS n FROM examples GROUP BY ALL"


def measure(*, shards: int = 20_000, size: int = 1, epsilons: int = 5, repeats: int = 3) -> list[Reading]:
    """`shards` of `size` examples × `epsilons`, of 10 victims, published as a sweep publishes them.

    10 million rows are `size=50, epsilons=10`; minutes of publishing come first.
    """
    slices = EXAMPLES // size
    with tempfile.TemporaryDirectory() as folder:
        grid = sweeps.write_grid(
            Path(folder),
            victims=10,
            attacks=shards // 10 // slices,
            epsilons=epsilons,
            examples=EXAMPLES,
            size=size,
        )
        output = Path(folder) / "output"
        sweeps.run(grid, output, runner=sweeps.PUBLISHER, backend="inline")
        if (found := sum(1 for _ in output.glob("shards/*/*"))) != shards:
            raise RuntimeError(f"{found} shards, not {shards}")
        rows = shards * size * epsilons
        run = ("run", str(Path(folder) / "benchmark.yaml"), "--output", str(output), "--backend", "inline")
        commands = {"table": ("table", str(output)), "query": ("query", str(output), COUNT)}
        resumed = [_seconds(run) for _ in range(repeats)]
        without = [_seconds(run, before=lambda: shutil.rmtree(output / "index")) for _ in range(repeats)]
        before = {name: [_seconds(command) for _ in range(repeats)] for name, command in commands.items()}
        unmeasured = _seconds(commands["table"], before=lambda: shutil.rmtree(output / "measured"))
        merging = _seconds(("compact", str(output)))
        removing = _seconds(("compact", str(output), "--grace", "0"))
        after = {name: [_seconds(command) for _ in range(repeats)] for name, command in commands.items()}
        anew = _seconds(commands["table"], before=lambda: shutil.rmtree(output / "measured"))
        files = [path.stat().st_size for path in output.glob("shards/*/*")]
    what = f"{shards:,} shards, {rows:,} rows"
    limits = {"table": (5, 2), "query": (None, 3)}
    return [
        Reading(what=f"run of what is done, {what}", value=statistics.median(resumed), unit="s", at_most=5),
        Reading(what="the same without an index", value=statistics.median(without), unit="s", at_most=20),
        *(
            Reading(what=f"{name}, {when}", value=statistics.median(read[name]), unit="s", at_most=limit)
            for name, both in limits.items()
            for when, read, limit in zip(("before", "after compact"), (before, after), both, strict=True)
        ),
        *(
            Reading(
                what=f"{name}, after / before",
                value=statistics.median(after[name]) / statistics.median(before[name]),
            )
            for name in limits
        ),
        Reading(what="table that measures all of it, before", value=unmeasured, unit="s"),
        Reading(what="table that measures all of it, after", value=anew, unit="s"),
        Reading(what="compact", value=merging, unit="s"),
        Reading(what="compact again, which reads all back and removes", value=removing, unit="s"),
        Reading(what="files", value=len(files), unit="files"),
        Reading(what="the largest of them", value=max(files) / 1e6, unit="MB", at_most=160),
    ]


def _seconds(command: Sequence[str], before: Callable[[], object] = lambda: None) -> float:
    before()
    used = child(["-c", MAIN, *command])
    if used.exit_code:
        raise RuntimeError(f"{command[0]}: exit code {used.exit_code}")
    return used.wall_seconds
