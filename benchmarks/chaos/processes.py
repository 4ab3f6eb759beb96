"""Processes of a trial: found by what they inherited or by their parents, never by name alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from benchmarks.chaos.scene import VARIABLE


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and whose parent has not asked does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def descendants(pid: int) -> dict[int, str]:
    """Children of children too, without itself: id and name of the program."""
    above, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
            above[int(folder.name)], names[int(folder.name)] = int(rest.split()[1]), name
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {child for child, parent in above.items() if parent in level} - found.keys()
        found.update({child: names[child] for child in level})
    return found


def kill(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(scene: Path) -> None:
    """Every process that belongs to a scene and is no child of this one's choosing any more."""
    mark = f"{VARIABLE}={scene}\0".encode()
    for _ in range(50):
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                    found.append(int(folder.name))
        found = [pid for pid in found if alive(pid)]
        if not found:
            return
        kill(found)
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Machines:
    """A cluster of `ray start` processes with one CPU each: a head, on which drivers hang, and others."""

    def __init__(self, environment: Mapping[str, str], log: Path, count: int) -> None:
        self.environment = environment
        self.log = log
        self.port = free_port()
        self.head = self._start("--head", f"--port={self.port}", "--include-dashboard=false")
        self.others: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            time.sleep(0.1)
        for _ in range(count):
            self.add()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        script = "from ray.scripts.scripts import main; main()"
        own = ["--block", "--num-cpus=1", f"--object-store-memory={80 * 2**20}"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", script, "start", *arguments, *own],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def add(self) -> None:
        self.others.append(self._start(f"--address={self.address}"))

    def up(self) -> list[tuple[subprocess.Popen[bytes], dict[int, str]]]:
        """The machines besides the head that have come up, each with its processes."""
        found = ((other, descendants(other.pid)) for other in self.others if other.poll() is None)
        return [(other, below) for other, below in found if "raylet" in below.values()]

    def settle(self, count: int) -> None:
        """Wait until so many machines besides the head are up, or for a minute."""
        deadline = time.monotonic() + 60
        while len(self.up()) < count and time.monotonic() < deadline:
            time.sleep(0.2)

    def gcs(self) -> list[int]:
        return [pid for pid, name in descendants(self.head.pid).items() if name.startswith("gcs_server")]

    def close(self) -> None:
        for each in (self.head, *self.others):
            kill([*descendants(each.pid), each.pid])
            each.wait()
