"""Every image classifier against every adversarial attack, at every strength, from Python.

    import robustsweep

    robustsweep.run("digits")                          # a shipped grid, a file, or a dict
    sweep = robustsweep.open("outputs/digits")         # in a notebook: the robustness table
    sweep.cells.df()                                   # a row for each cell, as pandas
    sweep.sql("SELECT * FROM worst_case").arrow()
    sweep.plot.curves().savefig("curves.pdf")          # robust accuracy against epsilon
    sweep.checks.df()                                  # what is wrong with the numbers, if anything
    robustsweep.strengthen("outputs/digits")           # what stronger attacks break of the survivors
    robustsweep.attack(model, images, labels, "pgd", epsilons=[0.1, 0.2], steps=20)

`python -m robustsweep` is the command line. TensorFlow and Ray are imported by what needs them, when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OptionError, UserError
from workers.version import VERSION as __version__

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from orchestrator.grid.entries import Grid
    from orchestrator.opened import Images, Relation, Sweep, Tables
    from orchestrator.plots import Plots
    from orchestrator.run.sweep import Summary
    from workers.attacks import AttackResult

__all__ = [
    "Grid",
    "Images",
    "Plots",
    "Relation",
    "Sweep",
    "Tables",
    "UserError",
    "__version__",
    "attack",
    "cells",
    "compact",
    "compare",
    "load_grid",
    "open",
    "query",
    "run",
    "strengthen",
    "verify",
]


Where = str | Path | Sequence[str | Path]
"""What `open` takes."""


def open(where: Where) -> Sweep:
    """Open one or more sweeps: output folders by path, URI, name in `outputs/` or glob.

    What they hold now is what is shown: open them again to see what a running sweep has added. UserError
    where there is none.
    """
    from orchestrator.opened import open_sweeps

    return open_sweeps([str(one) for one in ([where] if isinstance(where, str | Path) else where)])


def load_grid(grid: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Grid:
    """Read and check a grid: a file, a shipped one by its name, or a dict of what a file would hold.

    `overrides` are as of `--set`. UserError lists every problem that it has.
    """
    from orchestrator.grid.load import load_grid

    return load_grid(str(grid) if isinstance(grid, Path) else grid, overrides)


def run(
    grid: str | Path | Mapping[str, Any] | Grid,
    output: str | Path | None = None,
    *,
    quiet: bool = False,
    **options: Any,
) -> Summary:
    """Run a grid (as of `load_grid`, or a `Grid`) into an output folder; the same call resumes it.

    `options` are those of `orchestrator.run.options.RunOptions`: backend, workers, retry_failed, … Raises
    UserError for bad input, before anything runs; what fails while it runs is in the summary.
    """
    from rich.console import Console

    from orchestrator.grid.entries import Grid
    from orchestrator.run.options import RunOptions
    from orchestrator.run.prepare import prepare
    from orchestrator.run.progress import make_progress
    from orchestrator.run.sweep import run_sweep

    loaded = grid if isinstance(grid, Grid) else load_grid(grid)
    try:
        asked = RunOptions(output=str(output or f"outputs/{loaded.name}"), **options)
    except TypeError as error:
        raise UserError(f"run: {error}") from None
    asked.check()
    prepared = prepare(
        loaded, asked.output, data_dir=asked.data_dir, retry_failed=asked.retry_failed, only=asked.only
    )
    return run_sweep(prepared, asked, make_progress(Console(quiet=quiet)))


def cells(where: Where) -> pa.Table:
    """The results of the latest grids of one or more sweeps, a row for each cell: `open(where).cells`."""
    return open(where).cells.arrow()


def query(where: Where, sql: str) -> pa.Table:
    """The answer to one SELECT over the views of one or more sweeps; UserError for anything else."""
    return open(where).sql(sql).arrow()


def verify(where: Where) -> pa.Table:
    """What checks find in one or more sweeps, a row a finding, the gravest of each sweep first."""
    return open(where).checks.arrow()


def compact(where: Where, *, grace: float = 3600.0) -> pa.Table:
    """Merge the small files of one or more sweeps into few large ones, which is read much faster.

    Sweeps may run and be read meanwhile. What has been merged is removed once all of it has been found in
    the new file and `grace` seconds are over: call it again then. A row for each folder: how many files were
    `merged` into how many (`into`), `removed`, are still `waiting` to be, or had to be `left` as they are,
    and their bytes. UserError where there is no sweep.
    """
    import pyarrow as pa

    from orchestrator.store.compacting import compact
    from orchestrator.store.locate import existing_outputs, with_strengthened

    names = [str(one) for one in ([where] if isinstance(where, str | Path) else where)]
    stores = with_strengthened(existing_outputs(names))
    return pa.Table.from_pylist(
        [{"sweep": sweep, **compact(store, grace=grace).record()} for sweep, store in stores.items()]
    )


def compare(where: Where, first: str, second: str) -> Relation:
    """Two models, defences or sweeps of what `open(where)` opens, compared example by example.

    `first` and `second` are names, or `KEY=VALUE,…` of model, defence, recipe, seed and sweep. A row for each
    cell and worst case: the difference in robust accuracy (second less first) with its 95% interval, the
    exact McNemar test after Holm's correction for all rows, and the `result`: the second is better, worse or
    tied; doubtful where a check doubts the higher number; null where they cannot be compared, and `note` says
    why.
    UserError for a name that is not there, or where nothing can be paired.
    """
    return open(where).compare(first, second)


def strengthen(
    output: str | Path,
    grid: str | Path | Mapping[str, Any] | Grid | None = None,
    *,
    standard: bool = True,
    steps: int | None = None,
    queries: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> pa.Table:
    """Attack again what survived in a sweep, and return the view `strengthened`; the same call resumes.

    `grid` is by default the one that the folder keeps. `standard=False` does without that bundle, `steps` and
    `queries` are its own; `options` as of `run`. Raises UserError for bad input; what fails leaves its record
    in the folder's `strengthened/failures/`, and its survivors are not `tried`.
    """
    from rich.console import Console

    from orchestrator.grid.entries import Grid
    from orchestrator.run.options import RunOptions
    from orchestrator.run.progress import make_progress
    from orchestrator.run.strengthen import (
        bundle_options,
        kept_grid,
        prepare_strengthening,
        run_strengthening,
    )
    from orchestrator.store.locate import existing_output

    store = existing_output(str(output))
    try:
        asked = RunOptions(output=store.location, **options)
    except TypeError as error:
        raise UserError(f"strengthen: {error}") from None
    asked.check()
    found = prepare_strengthening(
        store,
        kept_grid(store) if grid is None else grid if isinstance(grid, Grid) else load_grid(grid),
        bundle=bundle_options(steps, queries) if standard else None,
        only=asked.only,
        retry_failed=asked.retry_failed,
    )
    if found.prepared.plan.cell_count:
        run_strengthening(found, asked, make_progress(Console(quiet=quiet)))
    return query(output, "FROM strengthened")


def attack(
    model: Callable[..., Any],
    images: NDArray[np.float32],
    labels: NDArray[np.integer],
    name: str,
    *,
    epsilons: Sequence[float],
    seed: int = 0,
    **options: Any,
) -> AttackResult:
    """Attack (N, H, W, C) float32 images in [0, 1] with one attack, at every epsilon ([0, 1] scale).

    `model` maps images to (N, K) logits and is a Keras model, or a function of TensorFlow's or Keras'
    operations: TensorFlow traces it, and takes its gradients. NumPy, or another library, is not allowed
    inside. `labels` are (N,) integers; `options` are the attack's own, `norm` among them; or the `factory` of
    one of yours, "package.module:object", and its options.
    ValueError for an unknown attack, wrong options (each with what was found and what is allowed), a model
    that cannot be traced, or arrays that do not fit.
    """
    from orchestrator.errors import did_you_mean
    from orchestrator.grid.aliases import ALIASES
    from orchestrator.grid.checker import option_problems
    from workers.attacks import REGISTRY, build

    if "factory" not in options:
        if name not in REGISTRY:
            near = did_you_mean(name, REGISTRY, ALIASES)
            raise OptionError(f'unknown attack "{name}"; {near}allowed: {", ".join(sorted(REGISTRY))}')
        if problems := option_problems(REGISTRY[name], options):
            raise OptionError(f"attack {name}: {'; '.join(problems)}")
    made = build({"name": name, **options})
    _trace(model, images)
    return made(model, images, labels, epsilons, seed=seed)


def _trace(model: Callable[..., Any], images: NDArray[np.float32]) -> None:
    """Put the first image through a model, which is traced by that; OptionError where it cannot be."""
    import numpy as np

    if np.ndim(images) != 4 or not len(images):
        return  # which the attack says
    import tensorflow as tf

    from workers.network import network_for

    try:
        network_for(model, tuple(np.shape(images)[1:])).logits(np.asarray(images[:1], np.float32))
    except (tf.errors.OpError, MemoryError):  # it was traced, and has failed
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        found = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise OptionError(
            f"model: TensorFlow cannot trace it ({found[:300]}); a Keras model, or a function of "
            "TensorFlow's or Keras' operations, from images to logits, is allowed"
        ) from error


_LATE = {
    "Grid": "orchestrator.grid.entries",
    "Plots": "orchestrator.plots",
    **dict.fromkeys(("Images", "Relation", "Sweep", "Tables"), "orchestrator.opened"),
}
"""Where types are that take a while to import."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
