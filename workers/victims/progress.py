"""How far a victim's training is, told to whoever watches the sweep: a small file, rewritten."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from workers.layout import training_progress
from workers.recorded import as_json
from workers.storage import Folder

_SECONDS, _FAR_SECONDS = 1.0, 10.0  # between two writes; to an object store


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a training is: `epoch` of the `epochs` of its phase are through."""

    phase: str
    epoch: int
    epochs: int
    validation_accuracy: float | None = None  # None before the first epoch is through
    under_attack: float | None = None  # of adversarial training: the accuracy on attacked validation images


Listener = Callable[[TrainingProgress], None]
"""Called as training goes on."""


def progress_writer(output: Folder, run_id: str, victim_id: str) -> Listener:
    """A `Listener` that leaves what it is told in the output folder, at most once a second or ten."""
    written = float("-inf")
    seconds = _SECONDS if output.is_local else _FAR_SECONDS

    def listen(progress: TrainingProgress) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written < seconds:
            return
        written = now
        with suppress(OSError):  # nothing to stop a training for
            output.publish(training_progress(run_id, victim_id), json.dumps(asdict(progress)).encode())

    return listen


def progress_text(output: Folder, run_id: str, victim_id: str) -> str:
    """ "head, epoch 3/10, accuracy 0.91", or "" when nothing is known."""
    try:
        progress = TrainingProgress(**as_json(output.read(training_progress(run_id, victim_id))))
        parts = [progress.phase.replace("_", " "), f"epoch {progress.epoch}/{progress.epochs}"]
        if progress.validation_accuracy is not None:
            parts.append(f"validation accuracy {progress.validation_accuracy:.2f}")
        if progress.under_attack is not None:
            parts.append(f"under attack {progress.under_attack:.2f}")
    except (OSError, ValueError, TypeError, AttributeError):
        return ""
    return ", ".join(parts)
