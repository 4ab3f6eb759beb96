"""What `plan --check` does: victims looked at before a sweep starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from orchestrator.plan.labels import labels_of
from orchestrator.results.checks import judge_victims
from orchestrator.results.placed import Placed
from orchestrator.run.backends.quiet import stderr_to
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import Prepared
from orchestrator.run.sweep import wanted_cells, worker_settings
from workers import factories
from workers.machine import available_cpus
from workers.probes import Probes
from workers.unit import VictimSpec


@dataclass(frozen=True)
class Looked:
    """What came of it."""

    findings: pa.Table  # `results.checks.rule.CHECKS`
    probed: int  # victims
    untrained: list[VictimSpec]  # probed as soon as a run has trained them
    refused: list[tuple[VictimSpec, str]]  # that a run could not attack, and why
    placed: Placed  # what people read of them

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "probed": self.probed,
            "untrained": [victim.victim_id for victim in self.untrained],
            "refused": [{"victim_id": victim.victim_id, "why": why} for victim, why in self.refused],
            "findings": [
                {name: value for name, value in row.items() if value is not None}
                for row in self.findings.to_pylist()
            ],
        }

    @property
    def sick(self) -> bool:
        """Whether a number of some victim's would be wrong, or could not be had."""
        return bool(self.refused) or "wrong" in self.findings["severity"].to_pylist()


def look(prepared: Prepared, options: RunOptions, say: Callable[[str], None]) -> Looked:
    """Probe every victim of a plan that needs no training, seconds each. Writes nothing.

    `say` hears of each victim.
    """
    from workers.checking import check, set_up

    victims = sorted((victim for victim, _ in prepared.plan.selected), key=lambda victim: victim.dataset.name)
    settings = replace(worker_settings(prepared, options), cpus=max(1, int(available_cpus())))
    factories.look_in(settings.python_path)
    with TemporaryDirectory() as folder, stderr_to(Path(folder) / "log"):
        set_up(settings)
    wanted = wanted_cells(prepared.plan, labels_of(prepared.grid)).to_pylist()
    placed = Placed(wanted)
    probes, untrained, refused = [], [], []
    for victim, found in check(victims, settings):
        if isinstance(found, Probes):
            probes.append(found)
            say(f"{placed.of(victim)}: probed in {found.seconds:.0f} s")
        elif found is None:
            untrained.append(victim)
        else:
            refused.append((victim, found))
    return Looked(judge_victims(victims, probes, wanted), len(probes), untrained, refused, placed)
