"""The command line: parse and print. What a command does lives in the modules it imports when called,
so that `--help` costs nothing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from orchestrator import completion
from orchestrator.arguments import (
    RECORD_FORMATS,
    AddressOption,
    AnswerFormatOption,
    BackendOption,
    CacheOption,
    CpusOption,
    DataOption,
    DryRunOption,
    FormatOption,
    GpusOption,
    GridArgument,
    Listing,
    MaxFailuresOption,
    OnlyOption,
    OutOption,
    OutputArgument,
    OutputOption,
    RecordFormatOption,
    RetryOption,
    RunCacheOption,
    SetOption,
    StopOption,
    TimeoutOption,
    WaitOption,
    WorkersOption,
    answer_format,
    check_format,
    parse_duration,
    query_text,
)
from orchestrator.results.text import BINARY, FORMATS
from orchestrator.store import OUTPUTS
from workers.version import VERSION

app = typer.Typer(
    name="robustsweep",
    help="Every image classifier against every adversarial attack, at every strength, in one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point. Exit codes: 0 done, 1 some cells failed, 2 bad input, 3 the cluster was lost,
    130 interrupted."""
    app()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Show the version and exit.", is_eager=True)
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
    backend: BackendOption = "ray",
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    address: AddressOption = "local",
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    retry_failed: RetryOption = False,
    max_failures: MaxFailuresOption = None,
    wait_for_workers: WaitOption = "10m",
    unit_timeout: TimeoutOption = None,
    stop_after: StopOption = None,
    data_dir: DataOption = None,
    cache_dir: RunCacheOption = None,
) -> None:
    """Run a grid. Running it again resumes: only what is missing is computed.

    Exit codes: 0 everything is done; 1 some cells failed; 2 bad input, or no worker or output folder to go on
    with; 3 the cluster was lost: the same command resumes; 130 interrupted.
    """
    with _user_errors():
        with _saying("planning"):
            from orchestrator.run.options import RunOptions
            from orchestrator.run.prepare import prepare
            from orchestrator.run.sweep import run_sweep

            loaded = _load(grid, overrides)
            options = RunOptions(
                output=output or f"{OUTPUTS}/{loaded.name}",
                backend=backend,
                address=address,
                workers=workers,
                cpus_per_worker=cpus_per_worker,
                gpus_per_worker=gpus_per_worker,
                retry_failed=retry_failed,
                only=tuple(only or ()),
                max_failures=max_failures,
                wait_for_workers=parse_duration(wait_for_workers, "--wait-for-workers"),
                unit_timeout=None if unit_timeout is None else parse_duration(unit_timeout, "--unit-timeout"),
                stop_after=None if stop_after is None else parse_duration(stop_after, "--stop-after"),
                data_dir=data_dir,
                cache_dir=cache_dir,
            )
            options.check()
            prepared = prepare(
                loaded, options.output, data_dir=data_dir, retry_failed=retry_failed, only=options.only
            )
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
    only: OnlyOption = None,
    retry_failed: RetryOption = False,
    data_dir: DataOption = None,
    cache_dir: CacheOption = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Probe the victims too that need no training, in seconds each."),
    ] = False,
    format: RecordFormatOption = "rich",
) -> None:
    """Show what a run would do: cells, what is there already, what is missing. Writes nothing.

    With --check, exit code 1: a number of some victim's would be wrong, or could not be had.
    """
    with _user_errors():
        check_format(format, RECORD_FORMATS)
        with _saying("planning"):
            from orchestrator import show
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
        _warn(prepared.warnings)
        looked = _look(prepared, data_dir, cache_dir) if check else None
        if format == "json":
            _print_record(plan_record(prepared) | ({"check": looked.record()} if looked else {}))
        else:
            show.plan(_console(), prepared)
            if looked:
                show.looked(_console(), looked)
    raise typer.Exit(1 if looked and looked.sick else 0)


@app.command()
def status(output: OutputArgument, format: RecordFormatOption = "rich") -> None:
    """Show how far a sweep is, and whether its run is alive."""
    with _user_errors():
        check_format(format, RECORD_FORMATS)
        from orchestrator import show
        from orchestrator.overview import status_record
        from orchestrator.store.locate import existing_output

        store = existing_output(output)
        if format == "json":
            _print_record(status_record(store))
        else:
            show.status(_console(), store)


@app.command()
def table(output: OutputArgument, format: FormatOption = "rich") -> None:
    """Show the robustness table of a sweep, from every shard there is by now."""
    with _user_errors():
        check_format(format, FORMATS)
        from orchestrator.results.tables import cells_and_worst_cases, robustness_tables

        form = _text_format(format)
        print(form.robustness(robustness_tables(*cells_and_worst_cases(_results(output)))), end="")


@app.command()
def query(
    output: OutputArgument,
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL|-", help="One SELECT over the views below; -: from standard input."),
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="FILE", help="Read the SELECT from a file.")] = None,
    format: AnswerFormatOption = None,
    out: OutOption = None,
) -> None:
    """Ask a sweep's results in SQL.

    Views: examples, cells, worst_case, distances, victims, history, failures, checks, strengthened. For
    instance:
    "SELECT model, avg(robust_accuracy) FROM cells WHERE epsilon = 0.1 GROUP BY model".
    """
    with _user_errors():
        kind, statement = answer_format(format, out), query_text(sql, file)
        from orchestrator.results.export import answer_text, write_answer, write_text
        from orchestrator.results.query import answering

        results = _results(output)
        ask = partial(answering, results, statement)
        if out is None:
            with ask() as answer:
                for piece in answer_text(answer, _text_format(kind)):
                    sys.stdout.write(piece)
        elif kind in BINARY:
            write_answer(ask, kind, out)
        else:
            write_text(ask, kind, out)


@app.command()
def verify(output: OutputArgument, format: FormatOption = "rich") -> None:
    """Hold a sweep's results against every check: what is wrong, suspicious or worth knowing, and what to do.

    Exit codes: 0 nothing is wrong, though there may be something suspicious, which the last line says; 1 a
    number is wrong, and no table shows it; 2 bad input.
    """
    with _user_errors():
        check_format(format, FORMATS)
        from orchestrator.results.tables import judged_tables
        from orchestrator.results.text import findings

        results = _results(output)
        *_, checks = judged_tables(results)
        if format == "rich":
            console = _console()
            width = console.width if console.is_terminal else None
            for severity, text in findings.lines(checks, findings.unprobed(results), width):
                style = findings.STYLES[severity] if severity else ""
                console.print(escape(text), style=style, highlight=False, soft_wrap=True)
        else:
            print(_text_format(format).table(checks), end="")
    raise typer.Exit(1 if findings.counts(checks)["wrong"] else 0)


@app.command()
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
    backend: BackendOption = "ray",
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    address: AddressOption = "local",
    retry_failed: RetryOption = False,
    max_failures: MaxFailuresOption = None,
    wait_for_workers: WaitOption = "10m",
    unit_timeout: TimeoutOption = None,
    stop_after: StopOption = None,
    data_dir: DataOption = None,
    cache_dir: RunCacheOption = None,
) -> None:
    """Attack again what survived: each attack with twice its steps, and standard. Again: it resumes.

    What changes by more than a point is suspicious from then on: verify and tables say so. The numbers of the
    grid stay as they are. Exit codes are those of run; a number that changes is none of them.
    """
    with _user_errors():
        with _saying("planning"):
            from orchestrator.run.options import RunOptions
            from orchestrator.run.strengthen import (
                bundle_options,
                kept_grid,
                prepare_strengthening,
                run_strengthening,
            )
            from orchestrator.store.locate import existing_output

            bundle = bundle_options(steps, queries) if standard else None
            store = existing_output(output)
            options = RunOptions(
                output=store.location,
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
            found = prepare_strengthening(
                store,
                _load(grid, overrides) if grid else kept_grid(store, overrides or ()),
                bundle=bundle,
                only=only or (),
                retry_failed=retry_failed,
            )
        _warn(found.prepared.warnings)
        from orchestrator import show

        console = _console()
        show.survivors(console, found)
        if dry_run or not found.prepared.plan.cell_count:
            return
        from orchestrator.run.progress import make_progress

        summary, changed = run_strengthening(found, options, make_progress(console))
        show.summary(console, found.prepared, summary)
        show.changes(console, changed, complete=not summary.exit_code)
    raise typer.Exit(summary.exit_code)


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


def _load(grid: str, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Grid is imported late
    from orchestrator.grid.load import load_grid

    return load_grid(grid, overrides or [])


def _look(prepared, data_dir: str | None, cache_dir: str | None):  # type: ignore[no-untyped-def]
    """What probes say of a plan's victims; what goes on is said meanwhile."""
    from orchestrator.run.check import look
    from orchestrator.run.options import RunOptions

    console = _console(stderr=True)
    options = RunOptions(output=prepared.store.location, data_dir=data_dir, cache_dir=cache_dir)
    with _saying("probing victims"):
        return look(prepared, options, lambda text: console.print(text, highlight=False, style="dim"))


def _results(output: str):  # type: ignore[no-untyped-def]  # Results is imported late
    with _saying("reading shards"):
        from orchestrator.store.locate import existing_output

        store = existing_output(output)
        accepted = store.accepted_shards()
        with suppress(OSError):  # a reader may have no right to write
            store.remember(accepted)
        results = store.results(accepted)
    _warn(accepted.warnings())
    return results


def _text_format(name: str):  # type: ignore[no-untyped-def]  # Format is imported late
    """In colour and the terminal's width where a person is looking; neither in a pipe or a file."""
    from orchestrator.results.text import text_format

    console = Console()
    return text_format(name, colour=True, width=console.width) if console.is_terminal else text_format(name)


def _print_record(record: dict[str, Any]) -> None:
    print(json.dumps(record, indent=2, ensure_ascii=False))


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, width=160)  # a pipe has no width to fit into
    return console


@contextmanager
def _saying(text: str) -> Iterator[None]:
    """What is going on, while a person waits at a terminal: imports alone take a second."""
    console = _console(stderr=True)
    with console.status(text) if console.is_terminal else nullcontext():
        yield


def _warn(warnings: list[str]) -> None:
    from workers.storage import redacted

    console = _console(stderr=True)
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(redacted(warning))}", highlight=False, soft_wrap=True)


@contextmanager
def _user_errors() -> Iterator[None]:
    """What a person can mend ends in one message and its exit code, 2 for bad input, without a traceback."""
    from orchestrator.errors import UserError
    from workers.storage import redacted

    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _console(stderr=True).print(
            f"[bold red]error:[/] {escape(redacted(str(error)))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:  # `robustsweep query … | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # nothing is left to say, or to close
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        _console(stderr=True).print("interrupted", style="yellow")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    main()
