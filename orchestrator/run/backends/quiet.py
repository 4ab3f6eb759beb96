"""Chatter of native libraries goes to a log file, by descriptor: it never passes through `sys.stderr`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stderr_to(log: Path) -> Iterator[None]:
    """Send this process's standard error, and what it starts meanwhile, to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    try:
        sys.stderr.flush()
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
