"""One entry of a grid's `datasets:`, checked as far as can be without decoding an image."""

from __future__ import annotations

from typing import Any

from orchestrator.checker import WORD, Checker, kind, show
from orchestrator.errors import did_you_mean
from orchestrator.grid import DatasetEntry
from orchestrator.grid_models import absolute, parse_train
from workers.datasets import (
    DATASETS,
    DatasetError,
    inspect,
    tfds,
)

_KEYS = ("name", "path", "size", "train")
_LARGEST = 4096  # pixels
_WAYS = 'your own: {name: birds, path: data/birds.npz}; or "tfds:<name>"'


def parse_dataset(check: Checker, raw: Any) -> DatasetEntry | None:
    """A registered name, `tfds:<name>`, or a name and a path; None, with the problems noted, for all else."""
    entry = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(entry, dict):
        check.problem(f"found {kind(raw)}; a name, or a mapping with name: and options, is allowed")
        return None
    with check.at("train"):
        train = parse_train(check, entry.get("train", {}))
    size = _size(check, entry)
    name = _name(check, entry.get("name"), own="path" in entry)
    if name is None:
        return None
    if "path" in entry:
        _unknown_options(check, entry, name, _KEYS)
        return _own(check, name, entry["path"], size, train)
    if name.startswith(tfds.PREFIX):
        _unknown_options(check, entry, name, ("name", "size", "train"))
        if problem := tfds.missing_extra():
            check.problem(problem)
        identity = {"version": tfds.TFDS_VERSION, **({"size": size} if size else {})}
        return DatasetEntry(name=name, identity=identity, train=train)
    _unknown_options(check, entry, name, ("name", "train"))
    source = DATASETS[name]
    return DatasetEntry(
        name=name, identity={"version": source.info.version}, shape=source.info.shape, train=train
    )


def _name(check: Checker, name: Any, *, own: bool) -> str | None:
    """The name, where it is one that such data may have."""
    allowed = f"{', '.join(sorted(DATASETS))}; {_WAYS}"
    if not isinstance(name, str):
        check.problem(f"a dataset needs a name; allowed: {allowed}")
    elif name.startswith(tfds.PREFIX):
        if not own and tfds.NAME.fullmatch(name):
            return name
        check.problem(f'"{name}" is not a name of tensorflow-datasets; such as tfds:svhn_cropped is allowed')
    elif not WORD.fullmatch(name):
        check.problem(f'"{name}" is not a dataset name; allowed: {allowed}')
    elif own and name in DATASETS:
        check.problem(f'"{name}" is the name of a registered dataset; data of your own need another')
    elif own or name in DATASETS:
        return name
    else:
        check.problem(f'unknown dataset "{name}"; allowed: {allowed}{did_you_mean(name, DATASETS)}')
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
    check: Checker, name: str, path: Any, size: int | None, train: dict[str, Any]
) -> DatasetEntry | None:
    """Data given by path, read once for what identifies them."""
    with check.at("path"):
        if not isinstance(path, str):
            check.problem(f"found {kind(path)}; an .npz file or a folder of images is allowed")
            return None
        location = absolute(path)
        options = {"size": size} if size else {}
        try:
            info = inspect({"name": name, "path": location, **options})
        except DatasetError as error:
            for problem in error.problems:
                check.problem(problem)
            return None
    return DatasetEntry(
        name=name,
        identity={"version": info.version, "content": info.content, **options},
        path=location,
        shape=info.shape,
        test_size=info.test_size,
        train=train,
    )
