"""The entries of a grid's `attacks:` that evaluate images which somebody else's tool made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.checker import Checker, show
from orchestrator.grid import AttackEntry, DatasetEntry
from orchestrator.grid_models import absolute
from workers.attacks.stored_images import StoredImages, StoredImagesError, read_stored
from workers.datasets import DATASETS


def parse_stored(check: Checker, entry: dict[str, Any]) -> tuple[str, StoredImages] | None:
    """What is left of an entry, a `path`, as the grid writes it, and its file, read and checked."""
    path = entry.pop("path", None)
    for key in entry:
        with check.at(key):
            check.unknown("option of attack stored", key, ("path",))
    if path is None:
        check.problem("stored needs the path: of an .npz with images and example_index")
        return None
    with check.at("path"):
        if not isinstance(path, str) or not path.endswith(".npz"):
            check.problem(f"found {show(path)}; the path or URI of an .npz file is allowed")
            return None
        try:
            return path, read_stored(absolute(path))
        except StoredImagesError as error:
            for problem in error.problems:
                check.problem(problem)
            return None


def check_stored(
    check: Checker,
    attacks: Sequence[tuple[AttackEntry, StoredImages]],
    datasets: Sequence[DatasetEntry],
    excludes: Sequence[Mapping[str, Any]],
) -> None:
    """Note every such attack and dataset, not excluded, whose images, epsilons or examples do not agree."""
    for attack, stored in attacks:
        for dataset in datasets:
            place = {"attack": attack.name, "norm": attack.norm, "dataset": dataset.name}
            if any(exclude.items() <= place.items() for exclude in excludes):
                continue
            for problem in _problems(attack, stored, dataset):
                with check.at("attacks"):
                    check.problem(
                        f"{problem}, for {dataset.name} (exclude: [{{attack: {attack.name}, "
                        f"dataset: {dataset.name}}}] leaves that out)"
                    )


def _problems(attack: AttackEntry, stored: StoredImages, dataset: DatasetEntry) -> list[str]:
    found: list[str] = []
    shape = dataset.shape or stored.images.shape[2:]
    try:
        stored.check_fits(shape, [float(epsilon) for epsilon in attack.epsilons.get(dataset.name, ())])
    except StoredImagesError as error:
        found += error.problems
    known = DATASETS.get(dataset.name)
    size = dataset.test_size or (known.info.test_size if known else None)
    if size and (last := int(stored.example_index.max())) >= size:
        found.append(
            f"{stored.path} has images of row {last} of the test split; rows up to {size - 1} are there"
        )
    return found
