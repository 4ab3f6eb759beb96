"""A grid held against its output folder: what is there, what is missing, whether it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.errors import UserError
from orchestrator.grid.entries import DatasetEntry, Grid, ModelEntry
from orchestrator.plan.cells import expand
from orchestrator.plan.only import select
from orchestrator.plan.units import Plan, make_plan
from orchestrator.run.options import RunOptions
from orchestrator.store.accepted import Accepted
from orchestrator.store.folder import Store
from workers.datasets import DATASETS, DatasetError, ensure_obtainable, inspect

_KEEP_ALL = 2**31 - 1


@dataclass
class Prepared:
    """A grid held against its output folder: what is there, what is missing."""

    grid: Grid
    store: Store
    accepted: Accepted
    plan: Plan
    warnings: list[str] = field(default_factory=list)
    survivors_of: Store | None = None  # the folder whose survivors are attacked, which tables are made of


def prepare(
    grid: Grid,
    output: str,
    *,
    data_dir: str | None = None,
    retry_failed: bool = False,
    only: Sequence[str] = (),
) -> Prepared:
    """Plan a grid, or what `only` selects of it, against what its output folder holds. Writes nothing."""
    store = Store(output)
    store.ensure_whole()
    victims = list(expand(grid))
    if not victims:
        raise UserError(f"grid {grid.name}: exclude leaves no cell at all")
    selected = select(victims, only, grid.pixel_range.width) if only else victims
    warnings = list(grid.warnings)
    examples = {}
    pairs = {(each.victim.model.name, each.victim.dataset.name) for each in victims}
    for dataset in grid.datasets:
        models = [model for model in grid.models if (model.name, dataset.name) in pairs]
        size = dataset.test_size or _looked_up(dataset, data_dir, models, warnings)
        examples[dataset.name] = min(grid.examples, size)
        if size < grid.examples:
            warnings.append(
                f"{dataset.name} has {size:,} test examples: {size:,} are used, not {grid.examples:,}"
            )
    accepted = store.accepted_shards()
    failed, failed_victims = ({}, frozenset()) if retry_failed else store.failed()
    plan = make_plan(
        victims,
        examples=examples,
        slice_size=grid.slice,
        keep=_KEEP_ALL if grid.keep == "all" else grid.keep,
        coverage=accepted.coverage,
        failed=failed,
        failed_victims=failed_victims,
        selected=selected,
    )
    warnings += accepted.warnings()
    return Prepared(grid, store, accepted, plan, warnings)


def ensure_data(prepared: Prepared, options: RunOptions) -> None:
    """UserError, before anything is trained, where it can be seen that data which is needed cannot be had.

    On a cluster the workers' machines may have what this one has not.
    """
    if options.address != "local":
        return
    needed = {victim.victim.dataset.name for victim in prepared.plan.todo}
    try:
        for dataset in prepared.grid.datasets:
            if dataset.name in needed:
                ensure_obtainable(dataset.spec, options.data_dir)
    except DatasetError as error:
        raise UserError(str(error)) from None


def _looked_up(
    dataset: DatasetEntry, data_dir: str | None, models: Sequence[ModelEntry], warnings: list[str]
) -> int:
    """The size of a test split that is known once the data folder is. `models` are attacked on it."""
    try:
        info = inspect(dataset.spec, data_dir)
    except DatasetError as error:
        raise UserError(str(error)) from None
    original = DATASETS[dataset.name].info if dataset.name in DATASETS else info
    if (info.train_size, info.test_size) != (original.train_size, original.test_size):
        warnings.append(
            f"{dataset.name} in the data folder has {info.train_size:,} training and {info.test_size:,} test "
            f"examples, the original {original.train_size:,} and {original.test_size:,}: results are not "
            "comparable with published ones"
        )
    for model in models:
        if dataset.shape is None and (why := model.misfit(dataset.name, info.shape)):
            raise UserError(why)
    return info.test_size
