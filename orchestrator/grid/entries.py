"""What a checked grid is made of. Epsilons are exact fractions on the [0, 1] scale."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.grid.numbers import PixelRange
from workers.norms import NormName
from workers.storage import redacted
from workers.unit import NO_DEFENCE, DatasetSpec, DefenceSpec, Inference
from workers.victims.saved import fits

EpsilonList = tuple[Fraction, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ModelEntry(_Frozen):
    """An architecture by registered name, the user's own constructor, or the user's own trained model.

    `train`, like the grid's and a dataset's, holds recipe options and, where given, `weights`: a
    `workers.unit.Weights` or None.
    """

    name: str
    label: str = ""  # what people read in place of its name; "": it has no other
    factory: str | None = None
    path: str | None = None  # of a .keras file, absolute, or a URI
    identity: Mapping[str, Any]  # version, or the fingerprint of the factory or file
    options: Mapping[str, Any]  # every option, spelled out, but for the weights
    given: Mapping[str, Any]  # those that differ from their defaults
    train: Mapping[str, Any] = {}
    as_it_is: bool = False  # evaluated without any training of ours
    inference: Inference | None = None  # how a user's own is called; None: as it looks
    takes_weights: bool = False
    min_size: int = 1
    channels: tuple[int, ...] = ()  # those that images may have; empty: any number
    input_shape: tuple[int | None, ...] | None = None  # (H, W, C) of a .keras file; None: it does not say
    warning: str = ""

    @property
    def normalised_channels(self) -> int:
        """For how many channels the model's `normalise` has values; 1: for any number."""
        normalise = self.options.get("normalise") if self.path else None
        return max(map(len, normalise.values())) if normalise else 1

    def misfit(self, dataset: str, shape: tuple[int, int, int]) -> str:
        """Why it cannot take a dataset's images of this shape; "" where it can."""
        if min(shape[:2]) < self.min_size:
            needed = f"needs images of at least {self.min_size} pixels"
        elif self.channels and shape[2] not in self.channels:
            needed = f"takes images of {' or '.join(map(str, self.channels))} channels"
        elif self.normalised_channels > 1 and shape[2] != self.normalised_channels:
            needed = f"normalises images of {self.normalised_channels} channels"
        elif self.input_shape and not fits(self.input_shape, shape):
            needed = f"takes images of {'×'.join(str(side or 'any') for side in self.input_shape)}"
        else:
            return ""
        return f"{self.name} {needed}; those of {dataset} have {'×'.join(map(str, shape))}"


class DatasetEntry(_Frozen):
    """A dataset by registered name, of another library, or the user's own by path."""

    spec: DatasetSpec
    label: str = ""
    shape: tuple[int, int, int] | None = None  # None: known when the dataset is looked up
    test_size: int | None = None  # likewise
    train: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        return self.spec.name


class DefenceEntry(_Frozen):
    """A defence by registered name, or the user's own; or a combination of `parts`, in order."""

    spec: DefenceSpec
    label: str = ""
    given: Mapping[str, Any] = {}  # the options that differ from their defaults
    at_inference: bool = False  # it, or a part of it, acts when the network answers
    certificate: Mapping[str, Any] = {}  # of a smoothed victim: what its certificates take, all options
    certificate_given: Mapping[str, Any] = {}  # those that differ from their defaults
    parts: tuple[DefenceEntry, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def each(self) -> tuple[DefenceEntry, ...]:
        """The parts of a combination; of any other defence itself."""
        return self.parts or (self,)

    @property
    def certified(self) -> DefenceEntry | None:
        """The part whose answers are certified, if any."""
        return next((part for part in self.each if part.certificate), None)

    @property
    def network(self) -> DefenceEntry:
        """What of it is in the network's weights."""
        undefended = DefenceEntry(spec=NO_DEFENCE)
        return next((part for part in self.each if part.spec.in_training), undefended)


class AttackEntry(_Frozen):
    """An attack under one norm. Pixel quantities among its options are on the [0, 1] scale."""

    name: str
    label: str = ""
    norm: NormName
    factory: str | None = None
    path: str | None = None  # of a file of images that somebody else's tool made, as the grid writes it
    identity: Mapping[str, Any]
    options: Mapping[str, Any]
    given: Mapping[str, Any]
    randomised: bool = False
    adaptive: bool = True
    transfer: bool = False  # the images made against one victim are tried on the others of its dataset
    epsilons: Mapping[str, EpsilonList]  # by dataset name, on the [0, 1] scale, ascending

    @property
    def shown(self) -> str:
        """What tells it from others of its name, for people."""
        return options_text({**self.given, **({"path": self.path} if self.path else {})})


class Selector(_Frozen):
    """Cells of a grid, which `exclude` leaves out and `--only` keeps: all that agree with every key given."""

    model: str | int | None = None
    dataset: str | int | None = None
    defence: str | int | None = None
    seed: str | int | None = None
    attack: str | int | None = None
    norm: str | int | None = None
    epsilon: Fraction | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """What it says, without the keys that it leaves open."""
        return {key: value for key in Selector.model_fields if (value := getattr(self, key)) is not None}

    def covers(self, **place: Any) -> bool:
        """Whether it has all of a place, be it a cell or only, say, a model and a dataset."""
        return all(place.get(key) == value for key, value in self.keys.items())

    def concerns(self, **place: Any) -> bool:
        """Whether it may have some of a place: nothing that is said of it disagrees."""
        return all(place.get(key, value) == value for key, value in self.keys.items())


class Grid(_Frozen):
    """A checked grid."""

    name: str
    models: tuple[ModelEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    attacks: tuple[AttackEntry, ...]
    defences: tuple[DefenceEntry, ...]
    train: Mapping[str, Any]
    pixel_range: PixelRange
    examples: int = 1000
    slice: int = 250
    keep: int | Literal["all"] = 8
    seeds: tuple[int, ...] = (0,)
    attack_seed: int = 0
    transfer: bool = False  # that of attacks that do not say
    exclude: tuple[Selector, ...] = ()
    warnings: tuple[str, ...] = ()
    text: str = ""  # the YAML of the grid as run, overrides applied
    python_path: tuple[
        str, ...
    ] = ()  # where factories were looked for: the grid's folder, the working folder


def options_text(given: Mapping[str, Any]) -> str:
    """Options for people: "steps=20, targeted=True"."""
    return redacted(", ".join(f"{key}={value}" for key, value in sorted(given.items())))
