"""Places and times that can be spoilt, as root: a disk that is full or read-only, a group of little
memory."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from benchmarks.chaos.runner import MEMORY

DISK_BYTES = 32 * 2**20
_GROUPS = Path("/sys/fs/cgroup/memory")


class Disk:
    """A small disk of its own: ext4 in a file, with a journal."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._image = path.with_suffix(".image")
        with self._image.open("wb") as stream:
            stream.truncate(DISK_BYTES)
        _done("mkfs.ext4", "-q", "-m", "0", str(self._image))
        self._mount()

    def fill(self) -> Callable[[], None]:
        """Leave no byte; what is returned makes room again."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(2**16))
        return lambda: filler.unlink()

    def read_only(self, paused: Callable[[], AbstractContextManager[None]]) -> Callable[[], None]:
        """As the kernel makes it after an error of the disk: what is open cannot be written either, and what
        was not flushed is lost. What is returned checks and mounts it anew, with its readers `paused`, who
        would find an empty folder meanwhile; OSError (EBUSY) while somebody keeps a file open."""
        _done("mount", "-o", "remount,abort", str(self.path))
        return lambda: self._repair(paused)

    def _repair(self, paused: Callable[[], AbstractContextManager[None]]) -> None:
        for _ in range(500):
            with paused(), suppress(subprocess.CalledProcessError):
                _done("umount", str(self.path))
                # Exit code 1: there was something to mend, and it is mended.
                subprocess.run(["e2fsck", "-f", "-y", str(self._image)], capture_output=True, check=False)
                return self._mount()
            time.sleep(0.02)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self.path))

    def _mount(self) -> None:
        _done("mount", "-o", "loop", str(self._image), str(self.path))

    def close(self) -> None:
        _done("umount", "--lazy", str(self.path))


def _done(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


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
    found: dict[str, str] = {}
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not shutil.which("mkfs.ext4"):
        found |= dict.fromkeys(("full", "read-only"), "a disk of its own needs root, loop devices, mkfs.ext4")
    if os.geteuid() != 0 or not os.access(_GROUPS, os.W_OK):
        found["memory"] = "it needs root and a memory control group (version 1)"
    return found
