"""The backends by name. Light: the command line and the options of a run read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry:
    """A backend that can be asked for by name."""

    target: str  # "module:Class", a `MakeBackend`
    unit_timeout: float | None = None  # seconds a unit may take where nothing else is asked for
    metrics: str | None = None  # "module:Class", an `orchestrator.run.watching.Metrics`
    refused: Mapping[str, str] = field(default_factory=dict)  # options without a meaning there, and why


_ONE_WORKER = "it is one worker in this process"

BACKENDS: dict[str, BackendEntry] = {
    "ray": BackendEntry(
        target="orchestrator.run.backends.ray:RayBackend",
        unit_timeout=6 * 3600.0,
        metrics="orchestrator.run.backends.ray_metrics:RayMetrics",
    ),
    "inline": BackendEntry(
        target="orchestrator.run.backends.inline:InlineBackend",
        refused={
            "workers": _ONE_WORKER,
            "min_workers": _ONE_WORKER,
            "max_workers": _ONE_WORKER,
            "gpus_per_worker": _ONE_WORKER,
            "use_cpus": _ONE_WORKER,
            "memory_per_worker": _ONE_WORKER,
            "resources_per_worker": _ONE_WORKER,
            "address": "it uses no Ray",
            "ship": "all is there",
            "wait_for_workers": _ONE_WORKER,
            "unit_timeout": "nothing from outside could end a unit",
        },
    ),
}
