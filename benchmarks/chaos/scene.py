"""What the processes of a trial share: a folder beside the output, named by the environment.

`executed.log` says what every runner began and ended, whatever became of it; files in `moods/` and `orders/`
tell runners and drivers how to misbehave. Times are of the monotonic clock, which is one for all processes
of a machine and which nobody sets back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

VARIABLE = "ROBUSTSWEEP_CHAOS"
PACE = "ROBUSTSWEEP_CHAOS_PACE"  # by what the seconds of made-up units are multiplied


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a unit in a process: when it ended well, or when it raised; else both are None."""

    unit: str
    pid: int
    run_id: str
    begin: float
    end: float | None
    failed: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    path: Path

    @classmethod
    def here(cls) -> Scene:
        """The one that this process belongs to; KeyError where it belongs to none."""
        return cls(Path(os.environ[VARIABLE]))

    def make(self) -> None:
        for name in ("moods", "orders"):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    # -- what was executed --------------------------------------------------------------------------------

    def log(self, *words: object) -> None:
        """A line, in one write: those of several processes do not mix."""
        line = " ".join(map(str, (*words, os.getpid(), f"{time.monotonic():.6f}"))) + "\n"
        descriptor = os.open(self.path / "executed.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    @contextmanager
    def executing(self, unit: str, run_id: str) -> Iterator[None]:
        """The end is written where the unit ended well, and so only after its rows were published."""
        self.log("begin", unit, run_id)
        try:
            yield
        except BaseException:
            self.log("failed", unit, run_id)
            raise
        self.log("end", unit, run_id)

    def lines(self) -> list[list[str]]:
        """Those that are whole: of one that is being written, a reader may see the beginning."""
        with suppress(FileNotFoundError):
            text = (self.path / "executed.log").read_text()
            return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        return []

    def executions(self) -> list[Execution]:
        """In the order in which they began."""
        found: list[Execution] = []
        running: dict[tuple[str, str], int] = {}
        for line in self.lines():
            if len(line) != 5 or line[0] not in ("begin", "end", "failed"):
                continue
            word, unit, run_id, pid, at = line
            if word == "begin":
                running[unit, pid] = len(found)
                found.append(Execution(unit, int(pid), run_id, float(at), None))
            else:
                place = running.pop((unit, pid))
                found[place] = replace(found[place], **{word: float(at)})
        return found

    # -- how to misbehave ---------------------------------------------------------------------------------

    def mood(self) -> str:
        """What the unit that begins is to do, if anything: who asks first, takes it."""
        for order in sorted((self.path / "moods").iterdir()):
            with suppress(FileNotFoundError):
                order.rename(self.path / "orders" / f"{order.name}.taken")
                return order.name.partition(".")[0]
        return ""

    @property
    def group(self) -> Path:
        """The control group of little memory, where there is one."""
        return Path((self.path / "group").read_text())

    @property
    def clock(self) -> Path:
        """By how many hours clocks are set back, where they may be."""
        return self.path / "clock"

    def hours_back(self) -> int:
        return int(self.clock.read_text() or 0)

    def write_fails(self) -> bool:
        """Whether this write is to fail: one for each file in `orders/` that says so."""
        for order in (self.path / "orders").glob("write.*"):
            with suppress(FileNotFoundError):
                order.unlink()
                return True
        return False
