"""The contract between the orchestrator and its workers: a `Unit` in, a `Report` out.

```
Unit    Training(victim)                                  Report   Done
        Evaluation(victim, attack, cells, [start, stop))           Failed
```

Everything here is small, picklable and free of TensorFlow, so that the driver can hold and send it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from workers.norms import NormName
from workers.recipe import Recipe

DEFAULT_RUNNER = "workers.evaluator:Evaluator"

Preparation = Literal["train", "fine-tune", "load"]
"""What a victim's weights take: training from scratch, from pretrained weights, or nothing."""

Inference = Literal["as_called", "off"]
"""How a model is called: by `model(images)`, or by `model(images, training=False)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a network starts from."""

    location: str  # "imagenet", a path or a URI
    sha256: str = ""  # of that file


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A network: a registered one by `name`, a user's own by `factory` or `path`, with `name` as its label.

    `options` are spelled out, all of them. `sha256` is that of the file at `path`. `inference` is how a
    user's own is called; None: as it looks (`workers.inference`).
    """

    name: str
    version: int | None = None  # of a registered network, or as a user's own declares it
    options: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None  # "package.module:object"
    source: str | None = None  # what the factory's `version` goes by, or the SHA-256 of its text
    path: str | None = None  # of a .keras file, absolute, or a URI
    sha256: str | None = None
    weights: Weights | None = None  # that a registered network starts from; None: fresh ones
    inference: Inference | None = None
    shown: str = ""  # the options that differ from their defaults, for people: "width=64"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """A dataset: a registered name, `tfds:<name>`, or any name beside a `path` to the user's own data."""

    name: str
    version: int = 1
    path: str | None = None  # absolute, or a URI
    size: int | None = None  # pixels: what images are resized to
    content: str | None = None  # SHA-256 that the data at the path must have


@dataclass(frozen=True, slots=True, kw_only=True)
class DefenceSpec:
    """A registered defence by `name`, or a user's own by `factory`, with `name` as its label.

    Its `options` are spelled out, all of them, pixels on the [0, 1] scale.
    """

    name: str
    version: int | None = None  # as of `ModelSpec`
    options: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None  # "package.module:object"
    source: str | None = None
    shown: str = ""  # the options that differ from their defaults, for people


def label(name: str, shown: str) -> str:
    """A model, an attack or a defence with its options, as every table, plan and figure names it."""
    return f"{name} ({shown})" if shown else name


NO_DEFENCE = DefenceSpec(name="none", version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimSpec:
    """What determines a victim: its weights and how it answers. `victim_id` is derived from the rest.

    A victim with a defence at inference has the weights of its `network`, the same without that defence.
    """

    victim_id: str
    network_id: str = ""  # the victim id of its network; "": there is no such defence
    model: ModelSpec
    dataset: DatasetSpec
    recipe: Recipe | None = None  # None: the model is evaluated as it is
    defence: DefenceSpec = NO_DEFENCE
    seed: int = 0

    @property
    def network(self) -> VictimSpec:
        """What is trained or loaded: the victim without its defence at inference; itself, if it has none."""
        if not self.network_id:
            return self
        return replace(self, victim_id=self.network_id, network_id="", defence=NO_DEFENCE)

    @property
    def preparation(self) -> Preparation:
        if self.recipe is None:
            return "load"
        return "fine-tune" if self.model.path or self.model.weights else "train"

    @property
    def label(self) -> str:
        """A short name for progress lines and failure records."""
        defence = "" if self.defence.name == NO_DEFENCE.name else f" with {self.defence.name}"
        seed = f" (seed {self.seed})" if self.seed else ""
        return f"{self.model.name} on {self.dataset.name}{defence}{seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """An attack under one norm. Its `options` are spelled out, all of them, pixels on the [0, 1] scale.

    `seed` is the grid's `attack_seed`, 0 for an attack without randomness.
    """

    attack_id: str
    name: str
    norm: NormName
    options: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None  # "package.module:object" of a user's own
    version: int | None = None  # as of `ModelSpec`
    source: str | None = None
    shown: str = ""  # the options that differ from their defaults, for people: "steps=20"
    adaptive: bool = True
    seed: int = 0

    @property
    def mark(self) -> str:
        """What is said behind it wherever it is named: that its gradients are not the defended victim's."""
        return "" if self.adaptive else " (oblivious)"

    @property
    def config(self) -> dict[str, Any]:
        """What `workers.attacks.build` takes."""
        own = {"factory": self.factory, "version": self.version, "source": self.source}
        return {"name": self.name, "norm": self.norm, **(own if self.factory else {}), **self.options}


@dataclass(frozen=True, slots=True)
class Training:
    """Make sure that the victim's weights exist (train, fine-tune or load it) and are pinned."""

    unit_id: str
    victim: VictimSpec

    @property
    def label(self) -> str:
        return f"{self.victim.preparation} {self.victim.label}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Run an attack on positions [start, stop) of the evaluation order.

    `cells` are pairs of (cell id, epsilon on the [0, 1] scale, float64), ascending in epsilon. Adversarial
    images are stored for the first `keep` positions of the evaluation order, and for the first `keep` that
    are broken here. `attacked` are the positions to attack, ascending; None: all whose clean image is
    answered rightly. The others have rows without success.
    """

    unit_id: str
    victim: VictimSpec
    attack: AttackSpec
    cells: tuple[tuple[str, float], ...]
    start: int
    stop: int
    keep: int = 0
    attacked: tuple[int, ...] | None = None

    @property
    def work(self) -> int:
        """Examples to attack × cells."""
        examples = self.stop - self.start if self.attacked is None else len(self.attacked)
        return examples * len(self.cells)

    @property
    def rows(self) -> int:
        """Examples × cells."""
        return (self.stop - self.start) * len(self.cells)

    @property
    def label(self) -> str:
        place = f"on {self.victim.label} [{self.start}, {self.stop})"
        return f"{self.attack.name} {self.attack.norm}{self.attack.mark} {place}"


def recorded(part: ModelSpec | DatasetSpec | DefenceSpec | AttackSpec) -> dict[str, Any]:
    """A part of a victim, or an attack, as JSON records hold it: the fields that say something."""
    return {name: value for name, value in asdict(part).items() if value not in (None, "", {})}


Unit = Training | Evaluation
"""What one worker does at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A unit that was done. Small: rows are in the shard, never here."""

    unit_id: str
    weights: str = ""  # SHA-256 of the victim's weights
    shard: str | None = None  # of an evaluation: its path below the output folder
    rows: int = 0
    trained: bool = False  # a training that really trained, rather than found its victim cached
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds per phase
    retire: bool = False  # the worker holds more memory than it may: replace it, uncharged


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A unit that failed. Errors come back as values."""

    unit_id: str
    error: str  # one line: "ValueError: the attack returned NaN"
    traceback: str = ""
    retire: bool = False
    disk_full: bool = False  # not the unit's fault, and no other would fare better


Report = Done | Failed
"""What came of a unit."""


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
    python_path: tuple[str, ...] = ()  # where the user's own modules are importable from, the first first
    runner: str = DEFAULT_RUNNER
    token: str = ""  # a file that the driver has left in output and cache, to be found there by every worker


Runner = Callable[[Unit], Done]
"""Made once per worker from its `WorkerSettings`, then called with one unit after another.

The object that `WorkerSettings.runner` names is called with the settings and returns a `Runner`.
A `Runner` may raise: its caller turns any exception into a `Failed`.
"""
