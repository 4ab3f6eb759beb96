"""What is broken inside the processes of a trial: writes that fail, and, to see that the harness notices it,
the promises that the product makes."""

from __future__ import annotations

import datetime
import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.chaos.scene import Scene
from workers import storage

MUTATION = "ROBUSTSWEEP_CHAOS_MUTATION"
STEPS = "ROBUSTSWEEP_CHAOS_STEPS"  # of writing, at the last of which the process is killed; 0: it lives


def sabotage(scene: Scene) -> None:
    """Put the faults of a trial into this process, once."""
    if not isinstance(storage.os, Failing):
        storage.os = Failing(scene)  # type: ignore[assignment]
    if scene.clock.exists():
        shift(scene)
    mutate()


class Failing:
    """The module `os` as `workers.storage` sees it: creating a temporary file, its fsync, its renaming and
    the fsync of its folder fail when the scene says so, each where it would have succeeded."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._steps = int(os.environ.get(STEPS, 0))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _perhaps(self, call: str) -> None:
        self._steps -= 1
        if not self._steps:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._scene.write_fails():
            self._scene.log("broken", call, "-")
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self._perhaps("open")
        return os.open(path, flags, mode)

    def fsync(self, descriptor: int) -> None:
        self._perhaps("fsync")
        os.fsync(descriptor)

    def replace(self, source: str, target: str) -> None:
        self._perhaps("replace")
        os.replace(source, target)


def shift(scene: Scene) -> None:
    """Let every `datetime` of ours go by the scene's clock.

    Not by libfaketime: under version 0.9.10 neither Ray nor `time.sleep` of Python 3.11 works (EINVAL).
    """

    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return super().now(tz) - datetime.timedelta(hours=scene.hours_back())

    for name, module in list(sys.modules.items()):
        ours = name.partition(".")[0] in ("orchestrator", "workers")
        if ours and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def mutate() -> None:
    """Break the promise that the environment names."""
    name = os.environ.get(MUTATION)
    if name:
        MUTATIONS[name]()


def torn() -> None:
    """A file appears under its name before it is whole."""

    def publish(self: storage.Folder, name: str, data: bytes | memoryview) -> None:
        target = self.join(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(data[: len(data) // 2])
            stream.flush()
            if name.endswith(".parquet"):
                time.sleep(0.3)
            stream.write(data[len(data) // 2 :])

    storage.Folder.publish = publish  # type: ignore[method-assign]


def twice() -> None:
    """What is in two shards counts twice."""
    from orchestrator.store import accepted

    sound = accepted.accept

    def accept(*arguments: Any, **named: Any) -> accepted.Accepted:
        result = sound(*arguments, **named)
        result._whole.extend(result.twice)
        return result

    accepted.accept = accept


def forgetful() -> None:
    """A driver takes a lost unit for done, and believes itself."""
    from orchestrator.run import scheduler, sweep

    sound = scheduler.Scheduler.lose

    def lose(self: Any, worker: str, *, charged: bool) -> Any:
        job = self._running.get(worker)
        if job is not None:
            self.finish(worker, ok=True)
        sound(self, worker, charged=charged)
        return None

    scheduler.Scheduler.lose = lose  # type: ignore[method-assign]
    sweep._missing = lambda *_: {}  # type: ignore[assignment]


def redone() -> None:
    """A driver computes again what shards cover."""
    from orchestrator.store import accepted

    sound = accepted.accept

    def accept(*arguments: Any, **named: Any) -> accepted.Accepted:
        result = sound(*arguments, **named)
        for cell_id, intervals in result.coverage.items():
            result.coverage[cell_id] = intervals[1:]
        return result

    accepted.accept = accept


def hasty() -> None:
    """A file is called published before the disk has its name for good."""
    sound = storage.os.fsync

    def fsync(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            sound(descriptor)

    storage.os.fsync = fsync


MUTATIONS: Mapping[str, Callable[[], None]] = {
    "torn": torn,
    "twice": twice,
    "forgetful": forgetful,
    "redone": redone,
    "hasty": hasty,
}
