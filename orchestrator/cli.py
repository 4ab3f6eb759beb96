"""The command line: parse and print. What a command does lives in the modules it imports when called,
so that `--help` costs nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from orchestrator.results.text import FORMATS
from orchestrator.run.backends.registry import BACKENDS
from workers.version import VERSION

app = typer.Typer(
    name="robustsweep",
    help="Every image classifier against every adversarial attack, at every strength, in one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Listing(StrEnum):
    models = "models"
    datasets = "datasets"
    attacks = "attacks"
    grids = "grids"
    victims = "victims"


GridArgument = Annotated[str, typer.Argument(metavar="GRID", help="A grid file, or a shipped grid's name.")]
OutputArgument = Annotated[str, typer.Argument(metavar="OUTPUT", help="A sweep's output folder or URI.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value of the grid: examples=100, epsilons.linf=[0,0.1].",
    ),
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", help="Output folder or URI. [default: outputs/<grid name>]")
]
DataOption = Annotated[
    str | None,
    typer.Option(envvar="ROBUSTSWEEP_DATA", help="Folder or URI with <dataset>.npz files in Keras' layout."),
]
CacheOption = Annotated[str | None, typer.Option(help="The cache of victims. [default: outputs/victims]")]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what failed for good in an earlier run.")
]
FormatOption = Annotated[
    str, typer.Option("--format", "-f", metavar="|".join(FORMATS), help="How to print it.")
]


def main() -> None:
    """The entry point. Exit codes: 0 done, 1 some cells failed, 2 bad input, 3 the cluster was lost,
    130 interrupted."""
    # The user's own models and attacks lie where the command is run; appended, they can shadow nothing.
    sys.path.append(os.getcwd())
    app()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"robustsweep {VERSION}")
        raise typer.Exit


@app.command()
def run(
    grid: GridArgument,
    output: OutputOption = None,
    overrides: SetOption = None,
    backend: Annotated[
        str, typer.Option(metavar="|".join(BACKENDS), help="ray: a pool of workers. inline: this process.")
    ] = "ray",
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many workers. [default: as many as the machines carry]")
    ] = None,
    cpus_per_worker: Annotated[
        int | None, typer.Option(min=1, help="CPUs, hence threads, of a worker.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, help="GPUs of a worker; a fraction shares one. [default: 1 where there are any]"),
    ] = None,
    address: Annotated[
        str, typer.Option(help="local: start Ray here. auto, or host:port: join that cluster.")
    ] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    retry_failed: RetryOption = False,
    max_failures: Annotated[
        str | None, typer.Option(metavar="N|P%", help="Stop when more units than this have failed for good.")
    ] = None,
    wait_for_workers: Annotated[
        str, typer.Option(metavar="TIME", help="How long to wait while no worker lives; 0: for ever.")
    ] = "10m",
    unit_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The longest one unit may take: 90s, 10m, 2h; 0: no limit. [default: 6h]"
        ),
    ] = None,
    stop_after: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Finish what is running and stop, before a job's time limit."),
    ] = None,
    data_dir: DataOption = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="Where trained victims are kept. [default: OUTPUT/../victims]")
    ] = None,
) -> None:
    """Run a grid. Running it again resumes: only what is missing is computed.

    Exit codes: 0 everything is done; 1 some cells failed; 2 bad input, or no worker or output folder to go on
    with; 3 the cluster was lost: the same command resumes; 130 interrupted.
    """
    with _user_errors():
        from orchestrator.run.options import RunOptions
        from orchestrator.run.prepare import prepare
        from orchestrator.run.sweep import run_sweep

        loaded = _load(grid, overrides)
        options = RunOptions(
            output=output or f"outputs/{loaded.name}",
            backend=backend,
            address=address,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            retry_failed=retry_failed,
            max_failures=max_failures,
            wait_for_workers=parse_duration(wait_for_workers, "--wait-for-workers"),
            unit_timeout=None if unit_timeout is None else parse_duration(unit_timeout, "--unit-timeout"),
            stop_after=None if stop_after is None else parse_duration(stop_after, "--stop-after"),
            data_dir=data_dir,
            cache_dir=cache_dir,
        )
        options.check()
        prepared = prepare(loaded, options.output, data_dir=data_dir, retry_failed=retry_failed)
        _warn(prepared.warnings)
        from orchestrator import show

        console = _console()
        if dry_run:
            show.plan(console, prepared)
            return
        from orchestrator.run.progress import make_progress

        summary = run_sweep(prepared, options, make_progress(console))
        show.summary(console, prepared, summary)
    raise typer.Exit(summary.exit_code)


@app.command()
def plan(
    grid: GridArgument,
    output: OutputOption = None,
    overrides: SetOption = None,
    retry_failed: RetryOption = False,
    data_dir: DataOption = None,
) -> None:
    """Show what a run would do: cells, what is there already, what is missing. Writes nothing."""
    with _user_errors():
        from orchestrator import show
        from orchestrator.run.prepare import prepare

        loaded = _load(grid, overrides)
        prepared = prepare(
            loaded, output or f"outputs/{loaded.name}", data_dir=data_dir, retry_failed=retry_failed
        )
        _warn(prepared.warnings)
        show.plan(_console(), prepared)


@app.command()
def status(output: OutputArgument) -> None:
    """Show how far a sweep is, and whether its run is alive."""
    with _user_errors():
        from orchestrator import show
        from orchestrator.store.folder import Store

        show.status(_console(), Store.existing(output))


@app.command()
def table(output: OutputArgument, format: FormatOption = "rich") -> None:
    """Show the robustness table of a sweep, from every shard there is by now."""
    with _user_errors():
        from orchestrator.results.tables import cells_table, robustness_tables

        form = _text_format(format)
        print(form.robustness(robustness_tables(cells_table(_results(output)))), end="")


@app.command()
def query(
    output: OutputArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the views below.")],
    format: FormatOption = "rich",
) -> None:
    """Ask a sweep's results in SQL.

    Views: examples, cells, worst_case, victims, history, failures. For instance:
    "SELECT model, avg(robust_accuracy) FROM cells WHERE epsilon = 0.1 GROUP BY model".
    """
    with _user_errors():
        from orchestrator.results.query import run_query

        form = _text_format(format)
        print(form.table(run_query(_results(output), sql)), end="")


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")], cache_dir: CacheOption = None
) -> None:
    """List what a grid may name, or the victims that the cache holds."""
    with _user_errors():
        if what is not Listing.victims:
            from orchestrator.listing import listing

            listing(_console(), what.value)
            return
        from orchestrator import show
        from orchestrator.clean import cached_victims

        show.victims(_console(), cached_victims(cache_dir))


@app.command()
def clean(
    what: Annotated[str, typer.Argument(metavar="victims|OUTPUT", help="The cache, or an output folder.")],
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
    with _user_errors():
        from orchestrator import show
        from orchestrator.clean import removable_output, removable_victims, remove
        from orchestrator.errors import UserError

        if what == "victims":
            found = removable_victims(cache_dir, names or [])
        elif names:
            raise UserError(f"only victims can be named, as in: robustsweep clean victims {names[0]}")
        else:
            found = removable_output(what)
        if yes:
            remove(found)
        show.removals(_console(), found, removed=yes)


@app.command()
def init(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The grid file to write.")] = "grid.yaml",
) -> None:
    """Write a commented grid to start from."""
    with _user_errors():
        from orchestrator.grid.template import write_grid

        write_grid(path)
    print(f"wrote {path}; `robustsweep plan {path}` shows what it would run")


# -- helpers ----------------------------------------------------------------------------------------------


def parse_duration(text: str, option: str) -> float:
    """Seconds of "90", "90s", "10m", "2h" or "1h30m"; UserError for anything else."""
    from orchestrator.errors import UserError

    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not match or not text:
        raise UserError(f'{option}: found "{text}"; a time such as 90s, 10m or 1h30m is allowed')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _load(grid: str, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Grid is imported late
    from orchestrator.grid.load import load_grid

    return load_grid(grid, overrides or [])


def _results(output: str):  # type: ignore[no-untyped-def]  # Results is imported late
    from orchestrator.store.folder import Store

    store = Store.existing(output)
    accepted = store.accepted_shards()
    _warn(accepted.warnings())
    return store.results(accepted)


def _text_format(name: str):  # type: ignore[no-untyped-def]  # Format is imported late
    """In colour and the terminal's width where a person is looking; neither in a pipe or a file."""
    from orchestrator.errors import UserError, did_you_mean
    from orchestrator.results.text import text_format

    if name not in FORMATS:
        near = did_you_mean(name, FORMATS)
        raise UserError(f'--format: found "{name}"; allowed: {", ".join(FORMATS)}{near}')
    console = Console()
    return text_format(name, colour=True, width=console.width) if console.is_terminal else text_format(name)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, width=160)  # a pipe has no width to fit into
    return console


def _warn(warnings: list[str]) -> None:
    console = _console(stderr=True)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


@contextmanager
def _user_errors() -> Iterator[None]:
    """What a person can mend ends in one message and its exit code, 2 for bad input, without a traceback."""
    from orchestrator.errors import UserError

    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _console(stderr=True).print(
            f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:  # `robustsweep query … | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # nothing is left to say, or to close
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


if __name__ == "__main__":
    main()
