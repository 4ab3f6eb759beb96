"""The contract between the orchestrator and its workers: a `WorkUnit` in, a `UnitReport` out.

Everything here is small, picklable and free of TensorFlow, so that the driver can hold and send it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_RUNNER = "workers.evaluate:Evaluator"


@dataclass(frozen=True, slots=True)
class VictimSpec:
    """What determines a victim: its weights and how it answers.

    The mappings are canonical: every option is spelled out, and each carries `name` and `version`
    (or, for a user's own object, its source's hash). `victim_id` is derived from them. An empty `recipe`:
    the model is evaluated as it is.
    """

    victim_id: str
    model: Mapping[str, Any]
    dataset: Mapping[str, Any]
    recipe: Mapping[str, Any]
    defence: Mapping[str, Any]
    seed: int
    model_options: str = ""  # the options that differ from their defaults, for people: "width=64"


@dataclass(frozen=True, slots=True)
class AttackSpec:
    """An attack with every option spelled out; `config` is what `workers.attacks.build` takes.

    `seed` is the grid's `attack_seed`; pixel quantities in `config` are on the [0, 1] scale.
    """

    attack_id: str
    config: Mapping[str, Any]
    name: str
    norm: str  # "linf" or "l2"
    options: str = ""  # the options that differ from their defaults, for people: "steps=20"
    adaptive: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """What one worker does at a time.

    Without an attack: make sure the victim's weights exist (fine-tune, or find them in the cache) and
    are pinned. With one: run it on positions [start, stop) of the evaluation order, for `cells`,
    pairs of (cell id, epsilon on the [0, 1] scale, float64), ascending in epsilon.
    """

    unit_id: str
    victim: VictimSpec
    attack: AttackSpec | None = None
    cells: tuple[tuple[str, float], ...] = ()
    start: int = 0
    stop: int = 0
    keep: int = 0  # adversarial images are stored for the first `keep` positions of the evaluation order

    @property
    def trains(self) -> bool:
        return self.attack is None

    @property
    def label(self) -> str:
        """A short name for progress lines and failure records."""
        victim = self.victim
        name = f"{victim.model['name']} on {victim.dataset['name']}"
        if victim.seed:
            name += f" (seed {victim.seed})"
        if self.attack is None:
            return f"{'fine-tune' if victim.recipe else 'load'} {name}"
        return f"{self.attack.name} {self.attack.norm} on {name} [{self.start}, {self.stop})"


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What came of a unit. Small: rows are in the shard, never here. Errors come back as values."""

    unit_id: str
    error: str | None = None  # one line: "ValueError: the attack returned NaN"
    traceback: str | None = None
    weights: str | None = None  # SHA-256 of the victim's weights
    shard: str | None = None  # path below the output folder
    rows: int = 0
    trained: bool = False  # a fine-tuning unit that really trained, rather than found its victim cached
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds per phase
    retire: bool = False  # the worker holds more memory than it may: replace it, uncharged

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is told once, when it starts.

    Locations are local paths or URIs that PyArrow understands, as seen from the worker.
    """

    output: str
    cache: str
    run_id: str
    data_dir: str | None = None
    cpus: int = 1
    gpus: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)  # the driver's: git commit, versions
    memory_limit: int | None = None  # bytes of resident memory above which a worker retires
    python_path: tuple[str, ...] = ()  # where the user's own modules are importable from
    runner: str = DEFAULT_RUNNER


Runner = Callable[[WorkUnit], UnitReport]
"""Made once per worker from its `WorkerSettings`, then called with one unit after another.

The object that `WorkerSettings.runner` names is called with the settings and returns a `Runner`.
A `Runner` may raise: its caller turns any exception into a report with `error` and `traceback`.
"""
