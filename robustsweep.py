"""Every image classifier against every adversarial attack, at every strength, from Python.

    import robustsweep

    robustsweep.run("digits")                                   # a shipped grid, or a file
    robustsweep.cells("outputs/digits").to_pandas()
    robustsweep.query("outputs/digits", "SELECT * FROM worst_case")
    robustsweep.verify("outputs/digits").to_pandas()            # what is wrong with the numbers, if anything
    robustsweep.strengthen("outputs/digits").to_pandas()        # what stronger attacks break of the survivors
    robustsweep.attack(model, images, labels, "pgd", epsilons=[0.1, 0.2], steps=20)

`python -m robustsweep` is the command line. TensorFlow and Ray are imported by what needs them, when called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from workers.version import VERSION as __version__

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from orchestrator.grid.entries import Grid
    from orchestrator.run.sweep import Summary
    from workers.attacks import AttackResult

__all__ = [
    "Grid",
    "UserError",
    "__version__",
    "attack",
    "cells",
    "load_grid",
    "query",
    "run",
    "strengthen",
    "verify",
]


def load_grid(location: str, overrides: Sequence[str] = ()) -> Grid:
    """Read and check a grid, a file or a shipped one by its name; `overrides` are as of `--set`.

    UserError lists every problem that it has.
    """
    from orchestrator.grid.load import load_grid

    return load_grid(location, overrides)


def run(grid: str | Grid, output: str | None = None, *, quiet: bool = False, **options: Any) -> Summary:
    """Run a grid (a `Grid`, a file, a shipped grid's name) into an output folder; the same call resumes it.

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
        asked = RunOptions(output=output or f"outputs/{loaded.name}", **options)
    except TypeError as error:
        raise UserError(f"run: {error}") from None
    asked.check()
    prepared = prepare(
        loaded, asked.output, data_dir=asked.data_dir, retry_failed=asked.retry_failed, only=asked.only
    )
    return run_sweep(prepared, asked, make_progress(Console(quiet=quiet)))


def cells(output: str) -> pa.Table:
    """The results of a sweep's latest grid, a row for each cell (the view `cells`)."""
    from orchestrator.results.tables import cells_table
    from orchestrator.store.locate import existing_output

    return cells_table(existing_output(output).results())


def query(output: str, sql: str) -> pa.Table:
    """The answer to one SELECT over a sweep's views; UserError for anything else."""
    from orchestrator.results.query import run_query
    from orchestrator.store.locate import existing_output

    return run_query(existing_output(output).results(), sql)


def verify(output: str) -> pa.Table:
    """What checks find in a sweep's results (the view `checks`), a row a finding, the gravest first."""
    from orchestrator.results.tables import judged_tables
    from orchestrator.store.locate import existing_output

    *_, checks = judged_tables(existing_output(output).results())
    return checks


def strengthen(
    output: str,
    grid: str | Grid | None = None,
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

    store = existing_output(output)
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

    `model` maps images to (N, K) logits, `labels` are (N,) integers; `options` are the attack's own, `norm`
    among them. UserError for an unknown attack or wrong options, ValueError for arrays that do not fit.
    """
    from pydantic import ValidationError

    from workers.attacks import build

    try:
        made = build({"name": name, **options})
    except (ValueError, ValidationError) as error:
        raise UserError(f"attack {name}: {error}") from None
    return made(model, images, labels, epsilons, seed=seed)


def __getattr__(name: str) -> Any:
    if name == "Grid":  # only now: what a grid is made of takes a while to import
        from orchestrator.grid.entries import Grid

        return Grid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from orchestrator.cli import main

    main()
