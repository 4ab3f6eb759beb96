"""What looks after grids, output folders and the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import completion
from orchestrator.commands.arguments import (
    RECORD_FORMATS,
    CacheOption,
    DryRunOption,
    GraceOption,
    Listing,
    OutputArgument,
    OutputsArgument,
    PriceOption,
    RecordFormatOption,
)
from orchestrator.commands.parsing import check_format, parse_duration
from orchestrator.console import make_console, print_record, saying, user_errors, warn
from orchestrator.errors import UserError


def init(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The grid file to write.")] = "grid.yaml",
) -> None:
    """Write a commented grid to start from."""
    with user_errors():
        from orchestrator.grid.template import write_grid

        write_grid(path)
    print(f"wrote {path}; `robustsweep plan {path}` shows what it would run")


def status(output: OutputArgument, price: PriceOption = None, format: RecordFormatOption = "rich") -> None:
    """Show how far a sweep is, whether its run is alive, and what all its runs have used."""
    with user_errors():
        check_format(format, RECORD_FORMATS)
        from orchestrator import show
        from orchestrator.overview import status_record
        from orchestrator.store.locate import existing_output

        store = existing_output(output)
        if format == "json":
            print_record(status_record(store))
        else:
            show.status(make_console(), store, price)


def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")], cache_dir: CacheOption = None
) -> None:
    """List what a grid may name, or the victims that the cache holds."""
    with user_errors():
        if what is not Listing.victims:
            from orchestrator.listing import listing

            listing(make_console(), what.value)
            return
        from orchestrator import show
        from orchestrator.clean import cached_victims

        show.victims(make_console(), cached_victims(cache_dir))


def clean(
    what: Annotated[
        str,
        typer.Argument(
            metavar="victims|OUTPUT",
            help="The cache, or an output folder.",
            autocompletion=completion.cleanable,
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="VICTIM", help="Victims of the cache to remove: ids or patterns like 'x-*'."),
    ] = None,
    cache_dir: CacheOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it, rather than show it.")] = False,
) -> None:
    """Remove what counts for nothing: broken victims, shards set aside, what a crash has left behind.

    Shows what would go; --yes lets it go. Victims that are named go even if they are whole: a sweep that
    needs one trains it again.
    """
    with user_errors():
        from orchestrator import show
        from orchestrator.clean import removable_output, removable_victims, remove

        if what == "victims":
            found = removable_victims(cache_dir, names or [])
        elif names:
            raise UserError(f"only victims can be named, as in: robustsweep clean victims {names[0]}")
        else:
            found = removable_output(what)
        if yes:
            remove(found)
        show.removals(make_console(), found, removed=yes)


def compact(outputs: OutputsArgument, dry_run: DryRunOption = False, grace: GraceOption = "1h") -> None:
    """Merge the small files of sweeps into few large ones, which tables and queries read much faster.

    Sweeps may run and be read meanwhile. What has been merged goes once all of it has been found in the new
    file and the grace is over: run the command again then. Exit codes: 0; 1 something had to be left as it
    is; 2 bad input.
    """
    with user_errors():
        from orchestrator import show_compacted
        from orchestrator.store import compacting
        from orchestrator.store.locate import existing_outputs, with_strengthened

        seconds = parse_duration(grace, "--grace")
        console = make_console()
        left = 0
        for name, store in with_strengthened(existing_outputs(outputs)).items():
            with saying(f"compacting {name}") as say:
                if dry_run:
                    plan = compacting.plan_compaction(store.accepted_shards(), grace=seconds)
                else:
                    done = compacting.compact(store, grace=seconds, progress=say)
            if dry_run:
                show_compacted.plan(console, name, plan)
                continue
            show_compacted.done(console, name, done)
            warn(f"{name}: shards/{one.name} stays as it is: {one.reason}" for one in done.left)
            left += len(done.left)
    raise typer.Exit(1 if left else 0)
