"""The command line: parse and print. What a command does lives in the modules it imports when called,
so that `--help` costs nothing."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from orchestrator import completion, rereading
from orchestrator.arguments import (
    RECORD_FORMATS,
    AddressOption,
    AnswerFormatOption,
    BackendOption,
    ByOption,
    CacheOption,
    CertifiedOption,
    CpusOption,
    DataOption,
    DigitsOption,
    DrawnOption,
    DryRunOption,
    EpsilonOption,
    FigureArgument,
    FormatOption,
    GpusOption,
    GraceOption,
    GridArgument,
    Listing,
    MaxFailuresOption,
    MaxWorkersOption,
    MemoryOption,
    MetricOption,
    MinWorkersOption,
    OnlyOption,
    OutOption,
    OutputArgument,
    OutputOption,
    OutputsArgument,
    PerClassOption,
    PriceOption,
    QualityOption,
    RecordFormatOption,
    RequireOption,
    ResourcesOption,
    RetryOption,
    RunCacheOption,
    SetOption,
    ShipOption,
    StopOption,
    TimeoutOption,
    TimingsOption,
    TransferOption,
    UseCpusOption,
    WaitOption,
    WidthOption,
    WithinOption,
    WorkersOption,
    answer_format,
    check_format,
    chosen_by,
    outputs_and_sql,
    parse_amounts,
    parse_bytes,
    parse_duration,
    parse_epsilon,
    query_text,
)
from orchestrator.console import doing_again, make_console, print_record, saying, text_form, user_errors, warn
from orchestrator.errors import UserError
from orchestrator.results.text import BINARY, FORMATS
from orchestrator.store import OUTPUTS
from orchestrator.submit.commands import app as submit
from workers.version import VERSION

if TYPE_CHECKING:
    from orchestrator.report.facts import Facts
    from orchestrator.results.schemas import Results
    from orchestrator.run.options import RunOptions

app = typer.Typer(
    name="robustsweep",
    help="Every image classifier against every adversarial attack, at every strength, in one command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


export = typer.Typer(help="Write what sweeps have kept to files.", no_args_is_help=True)
app.add_typer(export, name="export")
app.add_typer(submit, name="submit")


def main() -> None:
    """The entry point. Exit codes: 0 done, 1 some cells failed, 2 bad input, 3 the cluster was lost,
    130 interrupted."""
    # A queue that ends a job, or a shell that a person closes, is no other end than Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Cells by the ten thousand are no cycles: looking for some among them is an eighth of what `table` takes.
    gc.set_threshold(50_000)
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
    min_workers: MinWorkersOption = None,
    max_workers: MaxWorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    use_cpus: UseCpusOption = False,
    memory_per_worker: MemoryOption = None,
    resources_per_worker: ResourcesOption = None,
    ship: ShipOption = None,
    address: AddressOption = "local",
    only: OnlyOption = None,
    dry_run: DryRunOption = False,
    retry_failed: RetryOption = False,
    max_failures: MaxFailuresOption = None,
    wait_for_workers: WaitOption = "10m",
    unit_timeout: TimeoutOption = None,
    stop_after: StopOption = None,
    price: PriceOption = None,
    data_dir: DataOption = None,
    cache_dir: RunCacheOption = None,
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
            options = _run_options(
                output or f"{OUTPUTS}/{loaded.name}",
                backend=backend,
                address=address,
                workers=workers,
                min_workers=min_workers,
                max_workers=max_workers,
                cpus_per_worker=cpus_per_worker,
                gpus_per_worker=gpus_per_worker,
                use_cpus=use_cpus,
                memory_per_worker=memory_per_worker,
                resources_per_worker=resources_per_worker,
                ship=ship,
                retry_failed=retry_failed,
                only=tuple(only or ()),
                max_failures=max_failures,
                wait_for_workers=wait_for_workers,
                unit_timeout=unit_timeout,
                stop_after=stop_after,
                data_dir=data_dir,
                cache_dir=cache_dir,
            )
            prepared = prepare(
                loaded, options.output, data_dir=data_dir, retry_failed=retry_failed, only=options.only
            )
        warn(prepared.warnings)
        from orchestrator import show

        console = make_console()
        if dry_run:
            from orchestrator import show_costs

            show.plan(console, prepared)
            show_costs.costs(console, prepared.plan, _costs(prepared, cache_dir, ()), price)
            return
        from orchestrator.run.progress import make_progress

        summary = run_sweep(prepared, options, make_progress(console))
        show.summary(console, prepared, summary, price)
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


@app.command()
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


@app.command()
@doing_again
def table(
    outputs: OutputsArgument,
    format: FormatOption = "rich",
    by: ByOption = None,
    dataset: Annotated[list[str] | None, chosen_by("dataset")] = None,
    model: Annotated[list[str] | None, chosen_by("model")] = None,
    defence: Annotated[list[str] | None, chosen_by("defence")] = None,
    attack: Annotated[list[str] | None, chosen_by("attack")] = None,
    norm: Annotated[list[str] | None, chosen_by("norm")] = None,
    metric: MetricOption = "robust_accuracy",
    digits: DigitsOption = 1,
    transfer: TransferOption = False,
    certified: CertifiedOption = False,
    per_class: PerClassOption = False,
    quality: QualityOption = False,
    epsilon: EpsilonOption = None,
) -> None:
    """Show the robustness table of one or more sweeps, from every shard there is by now.

    With --transfer: who falls to whose images, a row for each victim that they were made against, a column
    for each that they were tried on. With --certified: what no attack can do to smoothed victims, and what
    attacks have done. With --quality: what attacks spend, and how near each comes to all of them together.
    """
    with user_errors():
        check_format(format, FORMATS)
        from orchestrator import show_tables
        from orchestrator.results.choice import choose, made, wanted_names

        wanted = wanted_names(dataset=dataset, model=model, defence=defence, attack=attack, norm=norm)
        if epsilon is not None and not per_class:
            raise UserError(
                "--epsilon is for --per-class, which shows one; a robustness table shows them all"
            )
        if per_class:
            if by or transfer or certified or quality or metric != "robust_accuracy":
                raise UserError(
                    "--per-class goes without --by, --metric, --transfer, --certified and --quality"
                )
            asked = None if epsilon is None else parse_epsilon(epsilon)
            show_tables.classes(_results(outputs), wanted, asked, format, digits)
            return
        if quality:
            if by or transfer or certified or metric != "robust_accuracy":
                raise UserError("--quality goes without --by, --metric, --transfer and --certified")
            show_tables.quality(_results(outputs), wanted, format, digits)
            return
        if certified:
            if by or transfer or metric != "robust_accuracy":
                raise UserError("--certified goes without --by, --metric and --transfer: it is one table")
            show_tables.certified(_results(outputs), wanted, format, digits)
            return
        if transfer:
            if by:
                raise UserError("--by does not go with --transfer, which is one matrix")
            show_tables.transfers(_results(outputs), wanted, metric, format, digits)
            return
        tables = made(_results(outputs), metric)
        chosen = choose(tables, wanted, by or ())
        print(text_form(format, digits=digits).robustness(chosen), end="")


@app.command()
@doing_again
def report(
    outputs: OutputsArgument,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="The file to write. [default: NAME.html]"),
    ] = None,
) -> None:
    """Write sweeps as one page that stands alone: the answer, charts, tables, checks, provenance."""
    with user_errors():
        from pathlib import Path

        from orchestrator.report.facts import gather
        from orchestrator.report.page import write_report
        from orchestrator.store.locate import existing_outputs, read_results

        with saying("reading shards"):
            stores = existing_outputs(outputs)
            path = out or f"{'-'.join(name.rpartition('/')[2] for name in stores)}.html"
            read: list[str] = []

            def ask() -> Facts:
                results, warnings = read_results(stores)
                read.extend(warnings)
                return gather(stores, results, warnings)

            write_report(ask, path)
        warn(read)
        size = Path(path).expanduser().stat().st_size
        print(f"wrote {path} ({size / 1e6:.1f} MB): it opens in any browser, and fetches nothing")


@app.command()
def view(
    outputs: OutputsArgument,
    port: Annotated[
        int, typer.Option(help="Where to listen, on this machine only; 0: any port that is free.")
    ] = 0,
) -> None:
    """Serve the same page on this machine while sweeps run: it fills in as shards arrive, and answers SQL.

    Ctrl-C ends it. Nothing is changed; only who has the address that is printed gets an answer.
    """
    with user_errors():
        from orchestrator.store.locate import existing_outputs
        from orchestrator.view.server import Server
        from orchestrator.view.watch import Watched

        watched = Watched(existing_outputs(outputs))
        server = Server(watched, port)
        with saying("reading shards"):
            watched.start()
        try:
            print(f"{server.address}  (Ctrl-C ends it)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.server_close()
            watched.close()


@app.command()
@doing_again
def figure(
    kind: FigureArgument,
    outputs: OutputsArgument,
    out: DrawnOption,
    dataset: Annotated[list[str] | None, chosen_by("dataset")] = None,
    model: Annotated[list[str] | None, chosen_by("model")] = None,
    defence: Annotated[list[str] | None, chosen_by("defence")] = None,
    attack: Annotated[list[str] | None, chosen_by("attack")] = None,
    norm: Annotated[list[str] | None, chosen_by("norm")] = None,
    by: ByOption = None,
    epsilon: EpsilonOption = None,
    width: WidthOption = None,
) -> None:
    """Draw a figure of one or more sweeps, from every shard there is by now.

    What is missing is a gap, what a check calls wrong has no number, and both are said below.
    """
    with user_errors():
        from orchestrator.results.choice import wanted_names
        from orchestrator.results.figures import Choice, draw, form_of, save

        form_of(out)  # a wrong name is said before anything is read
        choice = Choice(
            wanted=wanted_names(dataset=dataset, model=model, defence=defence, attack=attack, norm=norm),
            by=by or (),
            epsilon=None if epsilon is None else parse_epsilon(epsilon),
            width=width,
        )
        save(draw(kind, _results(outputs), choice), out)
        print(f"wrote {out}")


@app.command()
def image(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO…", help="Image files of any size.")],
    out: DrawnOption,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A victim of the cache, by its id or the beginning of it (list victims); or a network of "
            "keras.applications, as an ImageNet classifier.",
        ),
    ],
    attack: Annotated[str, typer.Option(metavar="NAME", help="list attacks has them.")] = "fgsm",
    epsilons: Annotated[
        str, typer.Option(metavar="E,E,…", help="A row of the figure for each, in --pixel-range.")
    ] = "0.01,0.03,0.1",
    norm: Annotated[str | None, typer.Option(metavar="linf|l2", help="[default: the attack's]")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the attack: steps=20."),
    ] = None,
    model_options: Annotated[
        list[str] | None,
        typer.Option("--model-set", metavar="KEY=VALUE", help="Of an ImageNet classifier: alpha=0.35."),
    ] = None,
    pixel_range: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="The scale in which epsilons are given.")
    ] = (0.0, 1.0),
    label: Annotated[
        int | None,
        typer.Option(metavar="N", help="Ascend the loss at this class, not at the model's own answer."),
    ] = None,
    cache_dir: CacheOption = None,
    width: WidthOption = None,
) -> None:
    """Attack photographs of yours, and draw what became of them: a row for each epsilon, with the image, the
    change, and the model's answers before and after.

    A photograph is resized to what the model takes, and attacked there.
    """
    with user_errors():
        from orchestrator.results.figures import Choice, form_of, save

        form_of(out)
        Choice(width=width)
        from orchestrator.photos import photo_figure

        with saying("importing TensorFlow"):
            drawing = photo_figure(
                photos,
                model=model,
                attack=attack,
                epsilons=epsilons,
                cache_dir=cache_dir or f"{OUTPUTS}/victims",
                norm=norm,
                options=options or (),
                model_options=model_options or (),
                pixel_range=pixel_range,
                label=label,
                width=width,
            )
        save(drawing, out)
        print(f"wrote {out}")


@export.command("images")
@doing_again
def export_images(
    outputs: OutputsArgument,
    to: Annotated[
        str, typer.Option(metavar="DIR", help="The folder to write to; it is made if it is not there.")
    ],
    dataset: Annotated[list[str] | None, chosen_by("dataset")] = None,
    model: Annotated[list[str] | None, chosen_by("model")] = None,
    defence: Annotated[list[str] | None, chosen_by("defence")] = None,
    attack: Annotated[list[str] | None, chosen_by("attack")] = None,
    norm: Annotated[list[str] | None, chosen_by("norm")] = None,
    epsilon: EpsilonOption = None,
) -> None:
    """Write kept adversarial images and their clean ones as PNG files, and a table of them, images.csv.

    Of each cell the first that were broken, and the first ones (`keep:` in its grid). A PNG has 8 bits:
    images are rounded so that they stay within epsilon, and `success_uint8` says whether they still fool.
    """
    with user_errors():
        from pathlib import Path

        from orchestrator.results import export_images as work

        wanted = {"dataset": dataset, "model": model, "defence": defence, "attack": attack, "norm": norm}
        done = work.export_images(
            _results(outputs),
            {key: names for key, names in wanted.items() if names},
            Path(to).expanduser(),
            epsilon=None if epsilon is None else parse_epsilon(epsilon),
        )
        make_console().print(
            f"{done.images:,} images of {done.cells:,} {'cell' if done.cells == 1 else 'cells'} in {to}, "
            f"described in {work.TABLE}",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
@doing_again
def query(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="OUTPUT… SQL|-",
            help="Output folders as of `table`, and one SELECT over the views below; -: from standard input.",
            autocompletion=completion.outputs,
        ),
    ],
    file: Annotated[str | None, typer.Option(metavar="FILE", help="Read the SELECT from a file.")] = None,
    format: AnswerFormatOption = None,
    out: OutOption = None,
) -> None:
    """Ask the results of one or more sweeps in SQL.

    Views: examples, cells, worst_case, distances, victims, history, failures, checks, strengthened,
    transfer, transferred; the column `sweep` of each says which sweep a row is of. For instance:
    "SELECT model, avg(robust_accuracy) FROM cells WHERE epsilon = 0.1 GROUP BY model".
    """
    with user_errors():
        outputs, sql = outputs_and_sql(words, file)
        kind, statement = answer_format(format, out), query_text(sql, file)
        from orchestrator.results.export import answer_text, write_answer, write_text
        from orchestrator.results.query import answering

        results = _results(outputs)
        ask = partial(answering, results, statement)
        if out is None:
            with ask() as answer:
                for piece in answer_text(answer, text_form(kind)):
                    rereading.once()
                    sys.stdout.write(piece)
        elif kind in BINARY:
            write_answer(ask, kind, out)
        else:
            write_text(ask, kind, out)


@app.command()
@doing_again
def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A sweep; with --in a model, defence or sweep there.")
    ],
    second: Annotated[
        str | None,
        typer.Argument(metavar="B", help="What is held against it. May be left out with --require."),
    ] = None,
    within: WithinOption = None,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit code 1 unless B is worse nowhere.")
    ] = False,
    requirements: RequireOption = None,
    format: FormatOption = "rich",
) -> None:
    """Compare two sweeps, models or defences example by example: which is the more robust, and is it sure?

    Exit codes: 0; 1 with --fail-if-worse where B is worse, or it cannot be told that it is not, and with
    --require where something does not meet it; 2 bad input.
    """
    with user_errors():
        check_format(format, FORMATS)
        from orchestrator.results.require import require
        from orchestrator.results.text import comparison as words
        from orchestrator.results.text.base import ForPrograms

        results, sides = _sides(first, second, within or [])
        failed = False
        only = None
        if sides is not None:
            from orchestrator.results.compare import compare

            found = compare(results, *sides)
            only, failed = found.of_second, fail_if_worse and found.worse
            form = text_form(format)
            people = not isinstance(form, ForPrograms)
            print(form.columns(words.columns(found)) if people else form.table(found.rows), end="")
            make_console(stderr=not people).print(words.summary(found), highlight=False, soft_wrap=True)
        elif fail_if_worse or not requirements:
            raise UserError("B is needed: what A is compared with; only --require goes without it")
        for requirement in requirements or ():
            required = require(results, requirement, only)
            failed |= bool(required.unmet)
            for line in words.unmet(required):
                make_console(stderr=True).print(escape(line), highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
@doing_again
def verify(output: OutputArgument, format: FormatOption = "rich") -> None:
    """Hold a sweep's results against every check: what is wrong, suspicious or worth knowing, and what to do.

    Exit codes: 0 nothing is wrong, though there may be something suspicious, which the last line says; 1 a
    number is wrong, and no table shows it; 2 bad input.
    """
    with user_errors():
        check_format(format, FORMATS)
        from orchestrator.results.judged import judged_tables
        from orchestrator.results.text import findings

        results = _results([output])
        *_, checks = judged_tables(results)
        if format == "rich":
            findings.show(make_console(), checks, unprobed=findings.unprobed(*results))
        else:
            print(text_form(format).table(checks), end="")
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
    min_workers: MinWorkersOption = None,
    max_workers: MaxWorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    use_cpus: UseCpusOption = False,
    memory_per_worker: MemoryOption = None,
    resources_per_worker: ResourcesOption = None,
    ship: ShipOption = None,
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
            options = _run_options(
                store.location,
                backend=backend,
                address=address,
                workers=workers,
                min_workers=min_workers,
                max_workers=max_workers,
                cpus_per_worker=cpus_per_worker,
                gpus_per_worker=gpus_per_worker,
                use_cpus=use_cpus,
                memory_per_worker=memory_per_worker,
                resources_per_worker=resources_per_worker,
                ship=ship,
                retry_failed=retry_failed,
                max_failures=max_failures,
                wait_for_workers=wait_for_workers,
                unit_timeout=unit_timeout,
                stop_after=stop_after,
                data_dir=data_dir,
                cache_dir=cache_dir,
            )
            found = prepare_strengthening(
                store,
                _load(grid, overrides) if grid else kept_grid(store, overrides or ()),
                bundle=bundle,
                only=only or (),
                retry_failed=retry_failed,
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


@app.command("list")
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


@app.command()
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


@app.command()
def init(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The grid file to write.")] = "grid.yaml",
) -> None:
    """Write a commented grid to start from."""
    with user_errors():
        from orchestrator.grid.template import write_grid

        write_grid(path)
    print(f"wrote {path}; `robustsweep plan {path}` shows what it would run")


# -- helpers ----------------------------------------------------------------------------------------------


def _load(grid: str, overrides: list[str] | None):  # type: ignore[no-untyped-def]  # Grid is imported late
    from orchestrator.grid.load import load_grid

    return load_grid(grid, overrides or [])


def _run_options(
    output: str,
    *,
    wait_for_workers: str,
    unit_timeout: str | None,
    stop_after: str | None,
    memory_per_worker: str | None,
    resources_per_worker: list[str] | None,
    ship: list[str] | None,
    **given: Any,
) -> RunOptions:
    """The options of a run, checked, from those of a command: durations and sizes as people write them."""
    from orchestrator.run.options import RunOptions

    options = RunOptions(
        output=output,
        wait_for_workers=parse_duration(wait_for_workers, "--wait-for-workers"),
        unit_timeout=None if unit_timeout is None else parse_duration(unit_timeout, "--unit-timeout"),
        stop_after=None if stop_after is None else parse_duration(stop_after, "--stop-after"),
        memory_per_worker=(
            None if memory_per_worker is None else parse_bytes(memory_per_worker, "--memory-per-worker")
        ),
        resources_per_worker=parse_amounts(resources_per_worker or (), "--resources-per-worker"),
        ship=tuple(ship or ()),
        **given,
    )
    options.check()
    return options


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


def _sides(
    first: str, second: str | None, within: list[str]
) -> tuple[list[Results], tuple[str | dict[str, str], str | dict[str, str]] | None]:
    """The sweeps that a comparison is of, and its sides; None with one side only."""
    if within:
        if second is None:
            raise UserError("B is needed with --in: what A is compared with there")
        return _results(within), (first, second)
    from orchestrator.store.locate import existing_outputs

    if second is None:
        return _results([first]), None
    for output in (first, second):
        if len(existing_outputs([output])) > 1:
            raise UserError(f"{output} is several output folders; with --in they are looked at together")
    results = _results([first, second])
    if len(results) < 2:
        raise UserError(f"{first} and {second} are the same output folder")
    return results, ({"sweep": results[0].sweep}, {"sweep": results[1].sweep})


def _results(outputs: list[str]) -> list[Results]:
    with saying("reading shards"):
        from orchestrator.store.locate import existing_outputs, read_results

        results, warnings = read_results(existing_outputs(outputs))
    warn(warnings)
    return results


if __name__ == "__main__":
    main()
