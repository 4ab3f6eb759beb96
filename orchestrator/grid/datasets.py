"""One entry of a grid's `datasets:`, checked as far as can be without decoding an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.errors import did_you_mean
from orchestrator.grid.aliases import ALIASES
from orchestrator.grid.checker import WORD, Checker, kind, show
from orchestrator.grid.entries import DatasetEntry
from orchestrator.grid.models import parse_train
from workers.datasets import DATASETS, SCHEMES, DatasetError, inspect, scheme_of
from workers.storage import absolute
from workers.unit import DatasetSpec

_KEYS = ("name", "label", "path", "size", "train")
_LARGEST = 4096  # pixels
_WAYS = ", ".join(
    ["your own: {name: birds, path: data/birds.npz}", *(f'or "{prefix}<name>"' for prefix in SCHEMES)]
)


def parse_dataset(check: Checker, raw: Any) -> DatasetEntry | None:
    """A registered name, `tfds:<name>`, or a name and a path; None, with the problems noted, for all else."""
    entry = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, dict):
        check.problem(f"found {kind(raw)}; a name, or a mapping with name: and options, is allowed")
        return None
    entry = dict(entry)
    label = check.label(entry)
    with check.at("train"):
        train = parse_train(check, entry.get("train", {}))
    size = _size(check, entry)
    name = _name(check, entry.get("name"), own="path" in entry)
    if name is None:
        return None
    if "path" in entry:
        _unknown_options(check, entry, name, _KEYS)
        return _own(check, name, label, entry["path"], size, train)
    if scheme := scheme_of(name):
        _unknown_options(check, entry, name, ("name", "label", "size", "train"))
        if problem := scheme.missing():
            check.problem(problem)
        spec = DatasetSpec(name=name, version=scheme.version, size=size)
        return DatasetEntry(spec=spec, label=label, train=train)
    _unknown_options(check, entry, name, ("name", "label", "train"))
    source = DATASETS[name]
    spec = DatasetSpec(name=name, version=source.info.version)
    return DatasetEntry(spec=spec, label=label, shape=source.info.shape, train=train)


def _name(check: Checker, name: Any, *, own: bool) -> str | None:
    """The name, where it is one that such data may have."""
    allowed = f"{', '.join(sorted(DATASETS))}; {_WAYS}"
    if not isinstance(name, str):
        check.problem(f"a dataset needs a name; allowed: {allowed}")
    elif scheme := scheme_of(name):
        if not own and scheme.names.fullmatch(name):
            return name
        check.problem(f'"{name}" is not a name of {scheme.library}; such as {scheme.example} is allowed')
    elif not WORD.fullmatch(name):
        near = did_you_mean(name, DATASETS, ALIASES)
        check.problem(f'"{name}" is not a dataset name; {near}allowed: {allowed}')
    elif own and name in DATASETS:
        check.problem(f'"{name}" is the name of a registered dataset; data of your own need another')
    elif own or name in DATASETS:
        return name
    else:
        near = did_you_mean(name, DATASETS, ALIASES)
        check.problem(f'unknown dataset "{name}"; {near}allowed: {allowed}')
    return None


def _size(check: Checker, entry: dict[str, Any]) -> int | None:
    size = entry.get("size")
    if size is None or (isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= _LARGEST):
        return size
    with check.at("size"):
        check.problem(f"found {show(size)}; a whole number of pixels, 1 to {_LARGEST}, is allowed")
    return None


def _unknown_options(check: Checker, entry: dict[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    for key in entry.keys() - set(allowed):
        with check.at(key):
            check.unknown(f"option of dataset {name}", key, [one for one in allowed if one != "name"])


def _own(
    check: Checker, name: str, label: str, path: Any, size: int | None, train: dict[str, Any]
) -> DatasetEntry | None:
    """Data given by path, read once for what identifies them."""
    with check.at("path"):
        if not isinstance(path, str):
            check.problem(f"found {kind(path)}; an .npz file or a folder of images is allowed")
            return None
        spec = DatasetSpec(name=name, path=absolute(path), size=size)
        try:
            info = inspect(spec)
        except DatasetError as error:
            for problem in error.problems:
                check.problem(problem)
            return None
    return DatasetEntry(
        spec=replace(spec, version=info.version, content=info.content),
        label=label,
        shape=info.shape,
        test_size=info.test_size,
        train=train,
    )
