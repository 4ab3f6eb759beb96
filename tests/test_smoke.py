"""The whole program as a person runs it: TensorFlow, Ray, the command line, and everything being killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from orchestrator.store.folder import Store
from orchestrator.store.records import Failure
from tests.support.sweeps import marked, nothing_left_behind, rows, times_counted

pytestmark = pytest.mark.ray

SOUND = ["fgsm", *({"name": "bim", "steps": steps} for steps in range(50, 60))]
FAULTY = [{"name": name, "factory": f"my_attacks:{name}"} for name in ("raises", "dies", "returns_nan")]
EXAMPLES = 100
SOUND_CELLS = 3 * len(SOUND)
CELLS = SOUND_CELLS + 3 * len(FAULTY)


class Folder:
    """Where a person works: a grid, attacks of their own, and what sweeps leave there."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path = path
        self.mark = mark
        shutil.copy(Path(__file__).parent / "support" / "faulty_attacks.py", path / "my_attacks.py")

    def grid(self, name: str, attacks: Sequence[object]) -> str:
        grid = {
            "models": ["small_cnn"],
            "datasets": ["digits"],
            "attacks": list(attacks),
            "epsilons": [0, 0.05, 0.1],
            "train": {"epochs": 3},
            "examples": EXAMPLES,
            "slice": EXAMPLES,
        }
        (self.path / f"{name}.yaml").write_text(yaml.safe_dump(grid))
        return f"{name}.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "robustsweep", *arguments]
        pipe = subprocess.PIPE
        # A session of its own, as a terminal gives it, for signals that go to all of its processes.
        return subprocess.Popen(
            command, cwd=self.path, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=200)
        return process.returncode, out, err

    def shards(self, output: str) -> list[Path]:
        return sorted((self.path / output / "shards").rglob("*.parquet"))

    def failures(self, output: str) -> list[Failure]:
        return Store(str(self.path / output)).failures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    # Two of Ray's agents take a minute to notice that their machine is gone.
    with pytest.MonkeyPatch.context() as patch, nothing_left_behind(patch, seconds=90.0) as mark:
        yield Folder(tmp_path_factory.mktemp("work"), mark)


def until(process: subprocess.Popen[str], true: Callable[[], object]) -> None:
    while not true():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def busy_workers(mark: str) -> list[int]:
    return [pid for pid, command in marked(mark).items() if command.startswith("ray::Worker.run")]


def able_to_write(mark: str) -> list[str]:
    """Driver and workers, without Ray's agents."""
    names = ("ray::Worker", sys.executable)
    return [command for command in marked(mark).values() if command.startswith(names)]


def test_faulty_attacks_fail_alone_and_can_be_retried(folder: Folder) -> None:
    """Also the uninterrupted run that the next test compares with."""
    grid = folder.grid("faulty", [*FAULTY, *SOUND])
    code, out, err = folder.run("run", grid, "-o", "whole/out")
    assert (code, err) == (1, "")
    assert f"{SOUND_CELLS} of {CELLS} cells done" in out
    assert "3 units failed" in out
    for text in (
        "raises linf on small_cnn on digits [0, 100): ArithmeticError: this attack cannot count",
        "dies linf on small_cnn on digits [0, 100): its process died (ActorDiedError)",
        "returns_nan linf on small_cnn on digits [0, 100): AttackError: returns_nan returned",
    ):
        assert text in out
    records = sorted(folder.failures("whole/out"), key=lambda record: (record.unit, record.attempt))
    assert [(record.attempt, record.final) for record in records] == [(1, False), (2, True)] * 3
    tracebacks = [record.traceback for record in records if record.unit.startswith("raises")]
    assert all("my_attacks.py" in text and "cannot count" in text for text in tracebacks)
    assert times_counted(rows(folder.path / "whole/out")) == {1: SOUND_CELLS * EXAMPLES}

    code, out, _ = folder.run("run", grid, "-o", "whole/out")
    assert (code, "3 units failed" in out) == (1, True)
    assert len(folder.failures("whole/out")) == 6  # nothing was tried

    (folder.path / "mended").touch()
    code, out, err = folder.run(
        "run", grid, "-o", "whole/out", "--retry-failed", "--backend", "inline", "--cpus-per-worker", "1"
    )
    assert (code, err) == (0, "")  # TensorFlow's talk is in the log
    assert f"{CELLS} of {CELLS} cells done" in out
    assert "failed" not in out
    assert times_counted(rows(folder.path / "whole/out")) == {1: CELLS * EXAMPLES}


def test_a_sweep_that_is_killed_again_and_again_ends_with_equal_rows(folder: Folder) -> None:
    run = ("run", folder.grid("sound", SOUND), "-o", "killed/out", "--workers", "2")

    # A worker is killed, and the sweep goes on; the driver is killed, and everything with it.
    process = folder.start(*run)
    until(process, lambda: folder.shards("killed/out") and busy_workers(folder.mark))
    os.kill(busy_workers(folder.mark)[0], signal.SIGKILL)
    known = len(folder.shards("killed/out"))
    until(process, lambda: len(folder.shards("killed/out")) > known and folder.failures("killed/out"))
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while (left := able_to_write(folder.mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    finished = folder.shards("killed/out")
    assert 0 < len(finished) < len(SOUND)
    code, out, err = folder.run("table", "killed/out")
    assert (code, err) == (0, "")
    assert "small_cnn" in out
    assert times_counted(rows(folder.path / "killed/out")) == {1: 3 * EXAMPLES * len(finished)}
    assert "dead: its process is gone" in folder.run("status", "killed/out")[1]

    # Ctrl-C, as a terminal sends it: to the whole session. What is running is finished.
    process = folder.start(*run)
    until(process, lambda: len(folder.shards("killed/out")) > len(finished))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "stopped before the end; the same command goes on from here" in out
    assert set(finished) < set(folder.shards("killed/out"))
    assert len(folder.shards("killed/out")) < len(SOUND)
    [record] = folder.failures("killed/out")  # of the killed worker, and of no other
    assert record.error.startswith("its process died (ActorDiedError)")

    code, out, err = folder.run(*run[:-1], "1")
    assert (code, err) == (0, "")
    assert f"{SOUND_CELLS} of {SOUND_CELLS} cells done" in out
    got = rows(folder.path / "killed/out")
    expected = rows(folder.path / "whole/out")
    cells = set(got["cell_id"].to_pylist())
    assert len(cells) == SOUND_CELLS
    assert got.equals(expected.filter([cell in cells for cell in expected["cell_id"].to_pylist()]))
