"""What runs grids, or says what a run would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator import completion
from orchestrator.commands.arguments import (
    RECORD_FORMATS,
    CacheOption,
    DataOption,
    DryRunOption,
    GridArgument,
    OnlyOption,
    OutputArgument,
    OutputOption,
    PriceOption,
    RecordFormatOption,
    RetryOption,
    SetOption,
    TimingsOption,
)
from orchestrator.commands.groups import Running, takes
from orchestrator.commands.parsing import check_format
from orchestrator.console import make_console, print_record, saying, user_errors, warn
from orchestrator.store import OUTPUTS


@takes(Running)
def run(
    grid: GridArgument,
    output: OutputOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    price: PriceOption = None,
    *,
    running: Running,
) -> None:
    """Run a grid. Running it again resumes: only what is missing is computed.

    Exit codes: 0 everything is done; 1 some cells failed; 2 bad input, or no worker or output folder to go on
    with; 3 the cluster was lost: the same command resumes; 130 interrupted.
    """
    with user_errors():
        with saying("planning"):
            from orchestrator.run.prepare import prepare
            from orchestrator.run.sweep import run_sweep

            loaded = _load(grid, overrides)
            options = running.options(output or f"{OUTPUTS}/{loaded.name}", only=tuple(only or ()))
            prepared = prepare(
                loaded,
                options.output,
                data_dir=options.data_dir,
                retry_failed=options.retry_failed,
                only=options.only,
            )
        warn(prepared.warnings)
        from orchestrator import show

        console = make_console()
        if dry_run:
            from orchestrator import show_costs

            show.plan(console, prepared)
            show_costs.costs(console, prepared.plan, _costs(prepared, options.cache_dir, ()), price)
            return
        from orchestrator.run.progress import make_progress

        summary = run_sweep(prepared, options, make_progress(console))
        show.summary(console, prepared, summary, price)
    raise typer.Exit(summary.exit_code)


def plan(
    grid: GridArgument,
    output: OutputOption = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    retry_failed: RetryOption = False,
    data_dir: DataOption = None,
    cache_dir: CacheOption = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Probe the victims too that need no training, in seconds each."),
    ] = False,
    price: PriceOption = None,
    timings: TimingsOption = None,
    format: RecordFormatOption = "rich",
) -> None:
    """Show what a run would do: cells, what is there already, what is missing. Writes nothing.

    How many hours of which device it takes is told by what earlier shards took, of this output and of those
    named by --timings; what has no such basis is counted.

    With --check, exit code 1: a number of some victim's would be wrong, or could not be had.
    """
    with user_errors():
        check_format(format, RECORD_FORMATS)
        with saying("planning"):
            from orchestrator import show, show_costs
            from orchestrator.overview import plan_record
            from orchestrator.run.prepare import prepare

            loaded = _load(grid, overrides)
            prepared = prepare(
                loaded,
                output or f"{OUTPUTS}/{loaded.name}",
                data_dir=data_dir,
                retry_failed=retry_failed,
                only=only or (),
            )
            costs = _costs(prepared, cache_dir, timings or ())
        warn(prepared.warnings)
        looked = _look(prepared, data_dir, cache_dir) if check else None
        if format == "json":
            print_record(plan_record(prepared, costs, price) | ({"check": looked.record()} if looked else {}))
        else:
            show.plan(make_console(), prepared)
            show_costs.costs(make_console(), prepared.plan, costs, price)
            if looked:
                show.looked(make_console(), looked)
    raise typer.Exit(1 if looked and looked.sick else 0)


@takes(Running)
def strengthen(
    output: OutputArgument,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="GRID",
            help="The grid that ran into it. [default: the one it keeps, its paths looked for from here]",
            autocompletion=completion.grids,
        ),
    ] = None,
    overrides: SetOption = None,
    only: OnlyOption = None,
    standard: Annotated[
        bool, typer.Option(help="Attack by standard too what no attack of a norm breaks.")
    ] = True,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of standard's members. [default: 100]")
    ] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Queries of its Square. [default: 5000]")] = None,
    dry_run: DryRunOption = False,
    *,
    running: Running,
) -> None:
    """Attack again what survived: each attack with twice its steps, and standard. Again: it resumes.

    What changes by more than a point is suspicious from then on: verify and tables say so. The numbers of the
    grid stay as they are. Exit codes are those of run; a number that changes is none of them.
    """
    with user_errors():
        with saying("planning"):
            from orchestrator.run.strengthen import (
                bundle_options,
                kept_grid,
                prepare_strengthening,
                run_strengthening,
            )
            from orchestrator.store.locate import existing_output

            bundle = bundle_options(steps, queries) if standard else None
            store = existing_output(output)
            options = running.options(store.location)
            found = prepare_strengthening(
                store,
                _load(grid, overrides) if grid else kept_grid(store, overrides or ()),
                bundle=bundle,
                only=only or (),
                retry_failed=options.retry_failed,
            )
        warn(found.prepared.warnings)
        from orchestrator import show

        console = make_console()
        show.survivors(console, found)
        if dry_run or not found.prepared.plan.cell_count:
            return
        from orchestrator.run.progress import make_progress

        summary, changed = run_strengthening(found, options, make_progress(console))
        show.summary(console, found.prepared, summary)
        show.changes(console, changed, complete=not summary.exit_code)
    raise typer.Exit(summary.exit_code)


def _load(grid: str, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Grid is imported late
    from orchestrator.grid.load import load_grid

    return load_grid(grid, overrides or [])


def _costs(prepared, cache_dir: str | None, timings: Sequence[str]):  # type: ignore[no-untyped-def]
    """What a plan takes on each device that something like it was timed on."""
    from orchestrator.run.history import costs
    from orchestrator.run.options import RunOptions
    from orchestrator.run.sweep import worker_settings
    from orchestrator.store.locate import existing_output

    options = RunOptions(output=prepared.store.location, cache_dir=cache_dir)
    others = [existing_output(name) for name in timings]
    return costs(prepared, cache=worker_settings(prepared, options).cache, others=others)


def _look(prepared, data_dir: str | None, cache_dir: str | None):  # type: ignore[no-untyped-def]
    """What probes say of a plan's victims; what goes on is said meanwhile."""
    from orchestrator.run.check import look
    from orchestrator.run.options import RunOptions

    console = make_console(stderr=True)
    options = RunOptions(output=prepared.store.location, data_dir=data_dir, cache_dir=cache_dir)
    with saying("probing victims"):
        return look(prepared, options, lambda text: console.print(text, highlight=False, style="dim"))
