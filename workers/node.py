"""What all workers of one machine share: files below the system's temporary folder.

Clusters put it (TMPDIR) on a machine's own disk. Whatever lies there can be deleted at any time.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.machine import own_folder


def shared(room: str) -> Path:
    """The folder of this name that a machine's workers share; it may not be there."""
    return Path(tempfile.gettempdir()) / f"robustsweep-{os.getuid()}" / room


def ensure_ours() -> None:
    """PermissionError where that folder is of somebody else, who may change what is in it."""
    own_folder(Path(tempfile.gettempdir()))


@contextmanager
def locked(room: str, key: str) -> Iterator[Path]:
    """The folder `room`, made, for only one process of this machine and key at a time.

    A process that ends, however it ends, lets go. PermissionError where the place belongs to somebody else,
    OSError where it cannot be made.
    """
    folder = shared(room)
    ensure_ours()
    folder.mkdir(exist_ok=True)
    with (folder / f"{key}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield folder
