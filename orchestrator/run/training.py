"""How far the trainings under way are, beside the labels of the workers that are on them."""

from __future__ import annotations

from orchestrator.run.progress import SweepState
from workers.storage import Folder
from workers.unit import Training, Unit
from workers.victims.progress import progress_text


class TrainingWatch:
    """Reads what workers leave in the output folder at the end of an epoch, into `SweepState.trainings`.

    `look` is for the thread that writes the status, as the driver's own may be at work on a unit.
    """

    def __init__(self, output: Folder, run_id: str, state: SweepState) -> None:
        self._output = output
        self._run_id = run_id
        self._state = state
        self._units: dict[str, Training] = {}

    def began(self, worker: str, unit: Unit) -> None:
        if isinstance(unit, Training):
            self._units[worker] = unit

    def ended(self, worker: str) -> None:
        self._units.pop(worker, None)
        self._state.trainings.pop(worker, None)

    def look(self) -> None:
        for worker, unit in list(self._units.items()):
            if text := progress_text(self._output, self._run_id, unit.victim.network.victim_id):
                self._state.trainings[worker] = (unit.label, text)
