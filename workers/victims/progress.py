"""How far a victim's training is, told to whoever watches the sweep: a small file, rewritten."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from workers.storage import Folder
from workers.victims.fitting import Report

_SECONDS = 1.0  # between two writes


def progress_file(run_id: str, victim_id: str) -> str:
    return f"runs/{run_id}/training/{victim_id}.json"


def progress_writer(output: Folder, run_id: str, victim_id: str) -> Report:
    """A `Report` that leaves what it is told in the output folder, at most once a second."""
    written = float("-inf")

    def report(progress: Mapping[str, Any]) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written < _SECONDS:
            return
        written = now
        with suppress(OSError):  # nothing to stop a training for
            output.publish(progress_file(run_id, victim_id), json.dumps(progress).encode())

    return report


def progress_text(output: Folder, run_id: str, victim_id: str) -> str:
    """ "head, epoch 3/10, accuracy 0.91", or "" when nothing is known."""
    try:
        progress = json.loads(output.read(progress_file(run_id, victim_id)))
        parts = [f"{progress['phase'].replace('_', ' ')}", f"epoch {progress['epoch']}/{progress['epochs']}"]
        if "validation_accuracy" in progress:
            parts.append(f"validation accuracy {progress['validation_accuracy']:.2f}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return ", ".join(parts)
