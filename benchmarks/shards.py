"""A folder of many small shards, before and after `compact`: seconds of whole commands, as a person waits."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Child, Reading, child
from benchmarks.startup import MAIN

EXAMPLES = 500
COUNT = "SELECT attack, epsilon, avg(success::INT) AS broken, count(*) AS n FROM examples GROUP BY ALL"


def command(arguments: Sequence[str]) -> Child:
    """Run robustsweep as a process of its own."""
    return child(["-c", MAIN, *arguments])


def measure(
    *,
    shards: int = 20_000,
    size: int = 1,
    epsilons: int = 5,
    repeats: int = 3,
    merged: float = 2,
    call: Callable[[Sequence[str]], Child] = command,
) -> list[Reading]:
    """`shards` of `size` examples × `epsilons`, of 10 victims, published as a sweep publishes them: minutes.

    `merged`: the seconds that `table` may take after `compact`.
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
        where = str(output)
        run = ("run", str(Path(folder) / "benchmark.yaml"), "--output", where, "--backend", "inline")
        commands = {"run of what is done": run, "table": ("table", where), "query": ("query", where, COUNT)}

        def all_of(times: int, lost: str = "") -> dict[str, list[Child]]:
            used: dict[str, list[Child]] = {}
            for name, arguments in commands.items():
                for _ in range(times):
                    if lost:
                        shutil.rmtree(output / lost, ignore_errors=True)
                    used.setdefault(name, []).append(_ended(call(arguments)))
            return used

        before, unlisted, unmeasured = all_of(repeats), all_of(1, "index"), all_of(1, "measured")
        merging = _ended(call(("compact", where)))
        removing = _ended(call(("compact", where, "--grace", "0")))
        after, anew = all_of(repeats), all_of(1, "measured")
        files = [path.stat().st_size for path in output.glob("shards/*/*")]
    print(f"  {shards:,} shards, {shards * size * epsilons:,} rows")
    targets = {"run of what is done": (5, 5), "table": (5, merged), "query": (None, 3)}
    return [
        *(
            reading
            for name, limits in targets.items()
            for when, used, limit in zip(("before", "after"), (before, after), limits, strict=True)
            for reading in _readings(f"{name}, {when} compact", used[name], limit)
        ),
        *(
            Reading(what=f"{name}, CPU after / before", value=_cpu(after[name]) / _cpu(before[name]))
            for name in commands
        ),
        *_readings("run of what is done, without an index", unlisted["run of what is done"], 20),
        *_readings("table, nothing measured, before compact", unmeasured["table"]),
        *_readings("table, nothing measured, after compact", anew["table"]),
        *_readings("compact", [merging]),
        *_readings("compact that reads back and removes", [removing]),
        Reading(what="files", value=len(files), unit="files"),
        Reading(what="the largest of them", value=max(files) / 1e6, unit="MB", at_most=160),
    ]


def _readings(what: str, used: Sequence[Child], limit: float | None = None) -> list[Reading]:
    wall = statistics.median(one.wall_seconds for one in used)
    return [
        Reading(what=what, value=wall, unit="s", at_most=limit),
        Reading(what=f"{what}, CPU", value=_cpu(used), unit="s"),
    ]


def _cpu(used: Sequence[Child]) -> float:
    return statistics.median(one.cpu_seconds for one in used)


def _ended(used: Child) -> Child:
    if used.exit_code:
        raise RuntimeError(f"exit code {used.exit_code}")
    return used
