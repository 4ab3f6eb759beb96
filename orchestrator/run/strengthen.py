"""What `strengthen` does: stronger attacks on what survives in an output folder, and what that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import GridError, StoreError, UserError
from orchestrator.grid.entries import Grid
from orchestrator.grid.load import grid_of_text
from orchestrator.plan.cells import expand
from orchestrator.plan.only import select
from orchestrator.plan.strengthen import NOT_OF_GRID, strengthen
from orchestrator.plan.units import make_plan
from orchestrator.rereading import again
from orchestrator.results.placed import Placed
from orchestrator.results.query import connect
from orchestrator.results.strengthened import Change, changes
from orchestrator.run.options import RunOptions
from orchestrator.run.prepare import Prepared
from orchestrator.run.progress import Progress
from orchestrator.run.sweep import Summary, beside, run_sweep
from orchestrator.store.folder import Store
from workers import layout
from workers.storage import absolute, redacted


@dataclass(frozen=True)
class Strengthen:
    """A folder's survivors, held against what stronger attacks on them there are already."""

    prepared: Prepared
    survivors: Mapping[str, int]  # cell id of the plan -> how many examples it attacks
    cells: Mapping[str, Mapping[str, Any]]  # cell id of the folder -> its row of the view `cells`
    left_out: Counter[str]  # why -> cells


def bundle_options(steps: int | None, queries: int | None) -> dict[str, int]:
    """The options of `standard` that are given."""
    return {name: value for name, value in (("steps", steps), ("queries", queries)) if value is not None}


def kept_grid(store: Store, overrides: Sequence[str] = ()) -> Grid:
    """The grid that last ran into a folder. UserError where it cannot be read from here."""
    source = f"{store.shown}/{layout.GRID}"
    try:
        text = store.folder.read(layout.GRID).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {source} ({error}): --grid names the grid") from None
    try:
        return grid_of_text(text, source, overrides)
    except GridError as error:
        raise UserError(
            f"{error}\nthis is the grid as it last ran; its paths and modules are looked for from here: run "
            "this where the grid was run, or name its file with --grid"
        ) from None


@again
def prepare_strengthening(
    store: Store,
    grid: Grid,
    *,
    bundle: Mapping[str, int] | None,
    only: Sequence[str] = (),
    retry_failed: bool = False,
) -> Strengthen:
    """Plan stronger attacks on the survivors of a folder, whose grid this is. Writes nothing.

    `bundle` has options of `standard` beside its defaults; None: do without it. `only` is as of a run, of the
    grid's cells. UserError where there is nothing of this grid in the folder.
    """
    results = store.results()
    with connect(results, named=("cells", "worst_case")) as connection:
        cells = connection.sql(_CELLS).to_arrow_table().to_pylist()
        worst = connection.sql(_WORST_CASES).to_arrow_table().to_pylist()
    selected = None
    if only:
        chosen = select(list(expand(grid)), only, grid.pixel_range.width)
        selected = {cell.cell_id for _, runs in chosen for run in runs for cell in run.cells}
    pinned = set(results.victims["victim_id"].to_pylist())
    found = strengthen(grid, cells, worst, pinned=pinned, bundle=bundle, only=selected)
    if cells and found.left_out[NOT_OF_GRID] == len(cells):
        raise UserError(
            f"no cell of grid {grid.name} is in {store.shown}: name the grid that ran into it with --grid"
        )
    inside = Store(store.strengthened)
    accepted = inside.accepted_shards(store.pins())
    failed, failed_victims = ({}, frozenset()) if retry_failed else inside.failed()
    plan = make_plan(
        found.victims,
        examples=found.examples,
        slice_size=grid.slice,
        keep=0,
        coverage=accepted.coverage,
        failed=failed,
        failed_victims=failed_victims,
        selected=found.selected,
        attacked=found.attacked,
    )
    prepared = Prepared(grid, inside, accepted, plan, accepted.warnings(), survivors_of=store)
    survivors = {name: len(at) for name, at in found.attacked.items()}
    return Strengthen(prepared, survivors, {cell["cell_id"]: cell for cell in cells}, found.left_out)


def run_strengthening(
    found: Strengthen, options: RunOptions, progress: Progress, **injected: Any
) -> tuple[Summary, list[Change]]:
    """Run what is missing, and say what came of it and of each number. Resumes as a run does.

    `options.output` is the folder whose survivors are attacked. Raises as `run_sweep`, whose other arguments
    `injected` are.
    """
    store = found.prepared.survivors_of
    assert store is not None
    cache = options.cache_dir or beside(absolute(store.location), "victims")
    options = replace(options, output=store.strengthened, cache_dir=cache)
    options.check()
    try:
        store.begin_strengthening()
    except OSError as error:
        raise StoreError(f"cannot write to {store.shown}: {redacted(str(error))}") from None
    summary = run_sweep(found.prepared, options, progress, **injected)
    return summary, _changes(store)


@again
def _changes(store: Store) -> list[Change]:
    with connect(store.results(), named=("cells", "strengthened")) as connection:
        rows = connection.sql("FROM input.strengthened").to_arrow_table().to_pylist()
        cells = connection.sql("FROM cells").to_arrow_table()
    return list(changes(rows, Placed(cells.to_pylist()).place))


_CELLS = "SELECT c.*, m.right_at, m.broken_at FROM cells c LEFT JOIN input.measured m USING (cell_id)"

_WORST_CASES = """
SELECT c.*, w.robust_at FROM worst_case c JOIN input.worst_cases w
ON (w.victim_id, w.norm, w.epsilon) = (c.victim_id, c.norm, c.epsilon)
"""
