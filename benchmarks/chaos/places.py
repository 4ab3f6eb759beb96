"""Places and times that can be spoilt, as root: a disk that is full or read-only, a group of little
memory."""

from __future__ import annotations

import errno
import os
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.chaos.runner import MEMORY

DISK_BYTES = 32 * 2**20
_GROUPS = Path("/sys/fs/cgroup/memory")


class Disk:
    """A small disk in memory."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "chaos", str(path))

    def fill(self) -> Callable[[], None]:
        """Leave no byte; what is returned makes room again."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(2**16))
        return lambda: filler.unlink()

    def read_only(self) -> Callable[[], None]:
        """OSError (EBUSY) while some process has a file open to write into."""
        for _ in range(50):
            try:
                mount("-o", "remount,ro", str(self.path))
                return lambda: mount("-o", "remount,rw", str(self.path))
            except subprocess.CalledProcessError:
                time.sleep(0.01)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


class MemoryGroup:
    """A control group with little memory, whose processes the kernel ends when they take more."""

    def __init__(self) -> None:
        self.path = _GROUPS / f"robustsweep-{uuid.uuid4().hex[:8]}"
        self.path.mkdir()
        (self.path / "memory.limit_in_bytes").write_text(str(MEMORY))

    def close(self) -> None:
        for _ in range(50):
            with suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.1)


def impossible() -> dict[str, str]:
    """The kinds of fault that cannot be had here, with the reason."""
    found = {}
    if os.geteuid() != 0:
        found |= dict.fromkeys(("full", "read-only"), "a disk of its own needs root")
    if os.geteuid() != 0 or not os.access(_GROUPS, os.W_OK):
        found["memory"] = "it needs root and a memory control group (version 1)"
    return found
