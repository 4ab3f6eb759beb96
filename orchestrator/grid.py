"""The grid: what a sweep measures, as written by a person and checked as a whole.

`load_grid` reads a file (or a shipped grid by its bare name), applies `--set` overrides, and either
returns a `Grid` or raises a `GridError` that lists everything wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from orchestrator.epsilons import PixelRange
from orchestrator.errors import Problem, UserError, did_you_mean
from orchestrator.yamlfile import Document, parse_yaml, read_yaml

NORMS = ("linf", "l2")
Norm = Literal["linf", "l2"]
EpsilonList = tuple[Fraction, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class PretrainedWeights(_Frozen):
    """What a network starts from."""

    location: str  # "imagenet", an absolute path or a URI
    sha256: str = ""  # of that file


class ModelEntry(_Frozen):
    """An architecture by registered name, the user's own constructor, or the user's own trained model.

    `train`, like the grid's and a dataset's, holds recipe options and, where given, `weights`: a
    `PretrainedWeights` or None.
    """

    name: str
    factory: str | None = None
    path: str | None = None  # of a .keras file, absolute, or a URI
    identity: Mapping[str, Any]  # version, or the fingerprint of the factory or file
    options: Mapping[str, Any]  # every option, spelled out, but for the weights
    given: Mapping[str, Any]  # those that differ from their defaults
    train: Mapping[str, Any] = {}
    as_it_is: bool = False  # evaluated without any training of ours
    takes_weights: bool = False
    min_size: int = 1
    channels: tuple[int, ...] = ()  # those that images may have; empty: any number
    input_shape: tuple[int | None, ...] | None = None  # (H, W, C) of a .keras file; None: it does not say


class DatasetEntry(_Frozen):
    """A dataset by registered name, of tensorflow-datasets, or the user's own by path."""

    name: str
    identity: Mapping[str, Any]  # version; for data given by path, the hash of their content too
    path: str | None = None  # absolute, or a URI
    shape: tuple[int, int, int] | None = None  # None: known when the dataset is looked up
    test_size: int | None = None  # likewise
    train: Mapping[str, Any] = {}

    @property
    def spec(self) -> dict[str, Any]:
        """What `workers.datasets` takes."""
        return {"name": self.name, **self.identity, **({"path": self.path} if self.path else {})}


class AttackEntry(_Frozen):
    """An attack under one norm. Pixel quantities among its options are on the [0, 1] scale."""

    name: str
    norm: Norm
    factory: str | None = None
    path: str | None = None  # of a file of images that somebody else's tool made, as the grid writes it
    identity: Mapping[str, Any]
    options: Mapping[str, Any]
    given: Mapping[str, Any]
    randomised: bool = False
    adaptive: bool = True
    epsilons: Mapping[str, EpsilonList]  # by dataset name, on the [0, 1] scale, ascending

    @property
    def shown(self) -> dict[str, Any]:
        """What tells it from others of its name, for people."""
        return {**self.given, **({"path": self.path} if self.path else {})}


class Grid(_Frozen):
    """A checked grid. Epsilons are exact fractions on the [0, 1] scale."""

    name: str
    models: tuple[ModelEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    attacks: tuple[AttackEntry, ...]
    defences: tuple[Mapping[str, Any], ...]
    train: Mapping[str, Any]
    pixel_range: PixelRange
    examples: int = 1000
    slice: int = 250
    keep: int | Literal["all"] = 8
    seeds: tuple[int, ...] = (0,)
    attack_seed: int = 0
    exclude: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    text: str = ""  # the YAML of the grid as run, overrides applied


def shipped_grids() -> dict[str, str]:
    """The grids that come with robustsweep: bare name -> YAML text."""
    folder = resources.files("grids")
    files = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {f.name.removesuffix(".yaml"): f.read_text("utf-8") for f in files if f.name.endswith(".yaml")}


def load_grid(location: str, overrides: Sequence[str] = ()) -> Grid:
    """Read and check a grid. GridError lists every problem; nothing has run by then."""
    from orchestrator.grid_parse import parse_grid  # it knows the registries, which take a while to import

    document, source = _read(location)
    problems: list[Problem] = []
    for override in overrides:
        _apply_override(document, override, problems)
    default_name = Path(location).stem if re.search(r"\.ya?ml$", location) else location
    return parse_grid(document, source, default_name=default_name, problems=problems)


def _read(location: str) -> tuple[Document, str]:
    path = Path(location).expanduser()
    if path.exists():
        return read_yaml(path), location
    shipped = shipped_grids()
    if location in shipped:
        return parse_yaml(shipped[location], f"grid {location}"), f"grid {location}"
    if re.fullmatch(r"[\w-]+", location):
        raise UserError(
            f'no grid "{location}": neither a file here nor a shipped grid; '
            f"shipped: {', '.join(shipped)}{did_you_mean(location, shipped)}"
        )
    raise UserError(f"no such file: {location}")


def _apply_override(document: Document, override: str, problems: list[Problem]) -> None:
    """Apply one `--set a.b.0=value`; the value is YAML. Its lines then belong to the command line."""
    key, equals, text = override.partition("=")
    steps: list[str | int] = [int(step) if step.isdigit() else step for step in key.strip().split(".")]
    if not equals or not all(step != "" for step in steps):
        problems.append(Problem(f'--set "{override}"', "key=value is allowed, such as examples=100"))
        return
    try:
        value = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):
        problems.append(Problem(f'--set "{override}"', "the value is not valid YAML"))
        return
    target = document.data
    for step in steps[:-1]:
        if isinstance(target, dict):
            target = target.setdefault(str(step), {})
        elif isinstance(target, list) and isinstance(step, int) and step < len(target):
            target = target[step]
        else:
            problems.append(Problem(f'--set "{override}"', f'the grid has nothing at "{step}" to set'))
            return
    last = steps[-1]
    if isinstance(target, dict):
        target[str(last)] = value
    elif isinstance(target, list) and isinstance(last, int) and last < len(target):
        target[last] = value
    else:
        problems.append(Problem(f'--set "{override}"', f'the grid has nothing at "{last}" to set'))
        return
    document.overridden.append(tuple(steps))
