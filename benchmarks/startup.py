"""CPU seconds of the commands that compute nothing, and what they import."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks import sweeps
from benchmarks.reading import Reading, child

MAIN = "from orchestrator.cli import main; main()"
# The last line of a command's output then says which of the two it has imported.
REPORTED = (
    "import atexit, sys; "
    "atexit.register(lambda: print('imported:', *{'tensorflow', 'ray'} & set(sys.modules))); " + MAIN
)


def measure(*, repeats: int = 5, shards: int = 2000) -> list[Reading]:
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
