"""What a worker process is: a runner kept alive between units, errors turned into reports.

Plain Python, so that it can be used without Ray; the Ray backend wraps it as an actor.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from workers import factories
from workers.code import Code, this_code
from workers.machine import resident_bytes
from workers.runtime import without_extras
from workers.storage import redacted
from workers.unit import Failed, Report, Runner, Unit, WorkerSettings


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Where a worker runs."""

    host: str
    pid: int
    node_id: str = ""  # Ray's id of the machine


class Worker:
    """Runs one unit after another, keeping its victim between them."""

    def __init__(self, settings: WorkerSettings, *, code: Code | None = None, log: str | None = None) -> None:
        """Raises RuntimeError when this machine runs other code than the driver's, `code`: a preflight has
        seen other machines, but a file may be edited while a sweep runs.

        `log` is a file that takes everything this process prints from now on, native libraries included.
        """
        if code and (differences := this_code().differences(code)):
            raise RuntimeError(
                f"{socket.gethostname()} runs other code than the driver: {'; '.join(differences)}: "
                "install the same everywhere"
            )
        self._ours = log is not None  # this process, rather than that of a person who called us
        if log:
            _redirect_output(Path(log))
        # What was shipped lies below the working folder, which a unit may leave.
        factories.look_in([os.path.abspath(place) for place in settings.python_path])
        self.settings = settings
        self._runner: Runner | None = None

    def ready(self) -> WorkerInfo:
        """Import and set up everything slow; units are sent only after this has returned."""
        self._make_runner()
        return WorkerInfo(socket.gethostname(), os.getpid(), _ray_node_id())

    def run(self, unit: Unit) -> Report:
        """Run a unit. Whatever goes wrong in it comes back as a `Failed`."""
        report: Report
        try:
            report = self._make_runner()(unit)
        except (Exception, SystemExit) as error:
            text = str(error).strip()
            line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
            report = Failed(
                unit_id=unit.unit_id,
                error=redacted(line),
                traceback=redacted(traceback.format_exc()),
                disk_full=_disk_full(error),
            )
        limit = self.settings.memory_limit
        return replace(report, retire=True) if limit and resident_bytes() > limit else report

    def _make_runner(self) -> Runner:
        if self._runner is None:
            module, _, name = self.settings.runner.partition(":")
            with without_extras() if self._ours else nullcontext():
                self._runner = getattr(importlib.import_module(module), name)(self.settings)
        return self._runner


def _disk_full(error: BaseException | None) -> bool:
    """Whether a full disk or a quota used up is behind an error. Not every library keeps the number."""
    while error is not None:
        numbers = (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        if any(os.strerror(number) in str(error) for number in numbers):
            return True
        error = error.__cause__ or error.__context__
    return False


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):  # by descriptor: TensorFlow's and XLA's messages never pass through sys.stderr
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _ray_node_id() -> str:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())
