"""How far the trainings under way are, in the labels of the workers that are on them."""

from __future__ import annotations

from typing import Any

from orchestrator.progress import SweepState
from workers.storage import Folder
from workers.unit import WorkUnit
from workers.victims.progress import progress_text


class TrainingWatch:
    """Reads what workers leave in the output folder at the end of an epoch.

    `snapshot` is for the thread that writes the status, as the driver's own may be at work on a unit.
    """

    def __init__(self, output: Folder, run_id: str, state: SweepState) -> None:
        self._output = output
        self._run_id = run_id
        self._state = state
        self._units: dict[str, WorkUnit] = {}

    def began(self, worker: str, unit: WorkUnit) -> None:
        if unit.trains:
            self._units[worker] = unit

    def ended(self, worker: str) -> None:
        self._units.pop(worker, None)

    def snapshot(self) -> dict[str, Any]:
        """The state of the run, the labels of fine-tuning workers brought up to date."""
        for worker, unit in list(self._units.items()):
            text = progress_text(self._output, self._run_id, unit.victim.victim_id)
            if text and self._units.get(worker) is unit:
                self._state.workers[worker] = f"{unit.label}: {text}"
        return self._state.as_dict()
