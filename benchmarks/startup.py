"""CPU seconds of the commands that compute nothing, and what they import; until the first worker is ready."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading, child

MAIN = "from orchestrator.cli import main; main()"
# The last line of a command's output then says which of the two it has imported.
REPORTED = (
    "import atexit, sys; "
    "atexit.register(lambda: print('imported:', *{'tensorflow', 'ray'} & set(sys.modules))); " + MAIN
)


def measure(*, repeats: int = 5, shards: int = 2000, backend: str = "ray") -> list[Reading]:
    """Each command `repeats` times; finished sweeps of 2 and of `shards` shards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small, run_small = _finished(root / "small", 2)
        large, run_large = _finished(root / "large", shards)
        return [
            *_command(root, "--help", ["--help"], repeats, at_most=0.5),
            *_command(root, "plan digits", ["plan", "digits", "--output", str(root / "none")], repeats),
            *_command(root, "table", ["table", small], repeats),
            *_command(root, "query", ["query", small, "SELECT count(*) FROM cells"], repeats),
            *_command(root, "run, of a finished sweep", run_small, repeats, at_most=2),
            *_command(root, f"table, {shards:,} shards", ["table", large], repeats),
            *_command(root, f"run, of a finished sweep, {shards:,} shards", run_large, repeats),
            *_first_worker(root / "started", repeats, backend),
        ]


def _first_worker(folder: Path, repeats: int, backend: str) -> list[Reading]:
    """Seconds on the clock from a command to what its run's log of events has first of each."""
    sets = ("models=[small_cnn]", "attacks=[fgsm]", "epsilons=[0.1]", "examples=8", "train.epochs=1")
    seconds: dict[str, list[float]] = {"run_started": [], "worker_joined": []}
    for number in range(repeats):
        output = folder / str(number)
        options = ["-o", str(output), "--cache-dir", str(folder / "victims"), "--backend", backend]
        begun = time.time()
        used = child(
            ["-c", MAIN, "run", "digits", *options, *(word for each in sets for word in ("--set", each))]
        )
        if used.exit_code:
            raise RuntimeError(f"robustsweep run digits ended with exit code {used.exit_code}")
        (log,) = output.glob("runs/*/events.jsonl")
        events = [json.loads(line) for line in log.read_text().splitlines()]
        for name, found in seconds.items():
            first = next(event for event in events if event["event"] == name)
            found.append(datetime.fromisoformat(first["at"]).timestamp() - begun)
    what = {"run_started": "planned, Ray started", "worker_joined": "a worker is ready"}
    return [
        Reading(what=f"robustsweep run digits: {what[name]}", value=statistics.median(found), unit="s")
        for name, found in seconds.items()
    ]


def _finished(folder: Path, shards: int) -> tuple[str, list[str]]:
    """The output of a finished sweep of made-up shards, run in this process, and what would run it again."""
    folder.mkdir()
    _, output = sweeps.run_units(shards, folder, runner=sweeps.PUBLISHER, backend="inline")
    return str(output), ["run", str(folder / "benchmark.yaml"), "--output", str(output)]


def _command(
    root: Path, what: str, arguments: list[str], repeats: int, *, at_most: float | None = None
) -> list[Reading]:
    log = root / "log"
    seconds = []
    for _ in range(repeats):
        log.write_text("")
        used = child(["-c", REPORTED, *arguments], log=str(log))
        if used.exit_code:
            raise RuntimeError(f"robustsweep {what} ended with exit code {used.exit_code}: {log.read_text()}")
        seconds.append(used.cpu_seconds)
    _, *heavy = log.read_text().splitlines()[-1].split()
    what = f"robustsweep {what}"
    return [
        Reading(what=what, value=statistics.median(seconds), unit="CPU s", at_most=at_most),
        Reading(what=f"{what}: imports of TensorFlow and Ray", value=len(heavy), at_most=0),
    ]
