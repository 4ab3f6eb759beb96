"""The contract between the orchestrator and its workers: a `Unit` in, a `Report` out.

```
Unit    Training(victim)                                  Report   Done
        Evaluation(victim, attack, cells, [start, stop))           Failed
        Transfer(victim, attack, into others, [start, stop))
```

Everything here is small, picklable and free of TensorFlow, so that the driver can hold and send it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from workers.norms import NormName
from workers.recipe import Recipe

DEFAULT_RUNNER = "workers.evaluator:Evaluator"

Preparation = Literal["train", "fine-tune", "load"]
"""What a victim's weights take: training from scratch, from pretrained weights, or nothing."""

Kind = Literal["attack", "transfer", "certificate"]
"""What rows are of: an attack on the victim itself, images that were made against another, or what nobody can
do to it."""

CERTIFY = "certify"
"""What stands in place of an attack where a smoothed victim's answers are certified (`workers.certify`)."""

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

    Its `options` are spelled out, all of them, pixels on the [0, 1] scale. A combination has `parts` instead,
    in the order of the grid, and their names joined by " + " as its own.
    """

    name: str
    version: int | None = None  # as of `ModelSpec`
    options: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None  # "package.module:object"
    source: str | None = None
    shown: str = ""  # the options that differ from their defaults, for people
    in_training: bool = False  # it changes the weights, and so the network
    parts: tuple[DefenceSpec, ...] = ()  # two or more, at most the first of them in training

    @property
    def each(self) -> tuple[DefenceSpec, ...]:
        """The parts of a combination; of any other defence itself."""
        return self.parts or (self,)

    @property
    def network(self) -> DefenceSpec:
        """What of it is in the weights: its part in training, `NO_DEFENCE` where there is none."""
        return next((part for part in self.each if part.in_training), NO_DEFENCE)

    @property
    def label(self) -> str:
        """With its options, as every table, plan and figure names it."""
        return COMBINED.join(label(part.name, part.shown) for part in self.each)


def label(name: str, shown: str) -> str:
    """A model, an attack or a defence with its options, as every table, plan and figure names it."""
    return f"{name} ({shown})" if shown else name


COMBINED = " + "
"""Between the names of the parts of a combination."""

NO_DEFENCE = DefenceSpec(name="none", version=1)


def without_options(defence: str) -> str:
    """The name in a label of a defence, part by part: "jpeg" of "jpeg (quality=50)"."""
    name, depth = "", 0
    for character in defence:
        depth += character in "(["
        name += "" if depth else character
        depth -= character in ")]" and depth > 0
    return " ".join(name.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class VictimSpec:
    """What determines a victim: its weights and how it answers. `victim_id` is derived from the rest.

    A victim with a defence at inference has the weights of its `network`, the same without that defence. One
    in training changes them: it is part of the network.
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
        return replace(self, victim_id=self.network_id, network_id="", defence=self.defence.network)

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


FROM = "-from-"
"""In the id of an attack that is tried on others, between its own id and what tells its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSpec:
    """An attack under one norm, or `CERTIFY` in L2. Its `options` are spelled out, all of them, pixels on the
    [0, 1] scale.

    `seed` is the grid's `attack_seed`, 0 for an attack without randomness. `made_against` is the
    victim that its images are made against, where it is another than the one that they are tried on.
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
    made_against: VictimSpec | None = None

    def against(self, source: VictimSpec, identity: str) -> AttackSpec:
        """The same, its images made against a victim and tried on others; told from others by `identity`."""
        return replace(self, attack_id=f"{self.attack_id}{FROM}{identity}", made_against=source)

    @property
    def made_by(self) -> str:
        """The id of the attack on the source that makes its images; of any other attack its own."""
        return self.attack_id if self.made_against is None else self.attack_id.rpartition(FROM)[0]

    @property
    def kind(self) -> Kind:
        if self.made_against is not None:
            return "transfer"
        return "certificate" if self.name == CERTIFY and not self.factory else "attack"

    @property
    def mark(self) -> str:
        """What is said behind it wherever it is named: that its gradients are not the defended victim's, or
        not the victim's at all."""
        if self.made_against is not None:
            return f" (from {self.made_against.label})"
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


@dataclass(frozen=True, slots=True)
class Transfer:
    """Make an attack's images against one victim, its whole budget spent, and try them on others.

    `into`: for each of the others what is to be measured there, at the same positions [start, stop); the
    attack of each is `made_against` the victim.
    """

    unit_id: str
    victim: VictimSpec
    attack: AttackSpec
    into: tuple[Evaluation, ...]
    start: int
    stop: int

    @property
    def cells(self) -> tuple[tuple[str, float], ...]:
        """Of all the others."""
        return tuple(cell for each in self.into for cell in each.cells)

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Ascending: those at which images are made."""
        return tuple(sorted({epsilon for _, epsilon in self.cells}))

    @property
    def work(self) -> int:
        """Examples × cells."""
        return sum(each.work for each in self.into)

    @property
    def label(self) -> str:
        place = f"{self.victim.label}, tried on {len(self.into)} others [{self.start}, {self.stop})"
        return f"{self.attack.name} {self.attack.norm} on {place}"

    def without(self, victims: Collection[str]) -> Transfer:
        """The same, less what can be of no victim with these ids; nothing is left if its own is one."""
        lost = self.victim.victim_id in victims
        into = tuple(each for each in self.into if not lost and each.victim.victim_id not in victims)
        return replace(self, into=into)


def recorded(part: ModelSpec | DatasetSpec | DefenceSpec | AttackSpec) -> dict[str, Any]:
    """A part of a victim, or an attack, as JSON records hold it: the fields that say something."""
    said = {name: value for name, value in asdict(part).items() if value not in (None, "", {}, ())}
    if isinstance(part, DefenceSpec) and part.parts:
        said["parts"] = [recorded(each) for each in part.parts]
    return said


Unit = Training | Evaluation | Transfer
"""What one worker does at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A unit that was done. Small: rows are in the shard, never here."""

    unit_id: str
    weights: str = ""  # SHA-256 of the victim's weights
    shard: str | None = None  # of an evaluation: its path below the output folder; of a transfer, its last
    rows: int = 0
    trained: bool = False  # a training that really trained, rather than found its victim cached
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds per phase
    device: str = ""  # that the worker is on, "AMD EPYC (CPU)", and how many of them it has
    devices: float = 1.0
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
    token: str = ""  # a file that the driver has left in output and cache, to be found there by every machine
    paths: tuple[str, ...] = ()  # files and folders that units name: models, weights, data
    factories: tuple[str, ...] = ()  # "package.module:object": the user's own that units name


Runner = Callable[[Unit], Done]
"""Made once per worker from its `WorkerSettings`, then called with one unit after another.

The object that `WorkerSettings.runner` names is called with the settings and returns a `Runner`.
A `Runner` may raise: its caller turns any exception into a `Failed`.
"""
