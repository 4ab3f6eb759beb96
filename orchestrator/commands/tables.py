"""What prints results: tables, answers to SQL, comparisons, checks."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from orchestrator import completion, rereading
from orchestrator.commands.arguments import (
    AnswerFormatOption,
    ByOption,
    CertifiedOption,
    DigitsOption,
    EpsilonOption,
    FormatOption,
    MetricOption,
    OutOption,
    OutputArgument,
    OutputsArgument,
    PerClassOption,
    QualityOption,
    RequireOption,
    TransferOption,
    WithinOption,
)
from orchestrator.commands.groups import Chosen, takes
from orchestrator.commands.parsing import (
    answer_format,
    check_format,
    outputs_and_sql,
    parse_epsilon,
    query_text,
)
from orchestrator.commands.reading import read
from orchestrator.console import doing_again, make_console, text_form, user_errors
from orchestrator.errors import UserError
from orchestrator.results.text import BINARY, FORMATS

if TYPE_CHECKING:
    from orchestrator.results.schemas import Results


@takes(Chosen)
@doing_again
def table(
    outputs: OutputsArgument,
    format: FormatOption = "rich",
    by: ByOption = None,
    *,
    chosen: Chosen,
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
        from orchestrator.results.choice import choose, made

        wanted = chosen.names
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
            show_tables.classes(read(outputs), wanted, asked, format, digits)
            return
        if quality:
            if by or transfer or certified or metric != "robust_accuracy":
                raise UserError("--quality goes without --by, --metric, --transfer and --certified")
            show_tables.quality(read(outputs), wanted, format, digits)
            return
        if certified:
            if by or transfer or metric != "robust_accuracy":
                raise UserError("--certified goes without --by, --metric and --transfer: it is one table")
            show_tables.certified(read(outputs), wanted, format, digits)
            return
        if transfer:
            if by:
                raise UserError("--by does not go with --transfer, which is one matrix")
            show_tables.transfers(read(outputs), wanted, metric, format, digits)
            return
        tables = made(read(outputs), metric)
        shown = choose(tables, wanted, by or ())
        print(text_form(format, digits=digits).robustness(shown), end="")


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

        results = read(outputs)
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

        results, sides = _sides(first, second, within or [])
        failed = False
        only = None
        if sides is not None:
            from orchestrator.results.compare import compare

            found = compare(results, *sides)
            only, failed = found.of_second, fail_if_worse and found.worse
            form = text_form(format)
            people = not form.for_programs
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

        results = read([output])
        *_, checks = judged_tables(results)
        if format == "rich":
            findings.show(make_console(), checks, unprobed=findings.unprobed(*results))
        else:
            print(text_form(format).table(checks), end="")
    raise typer.Exit(1 if findings.counts(checks)["wrong"] else 0)


def _sides(
    first: str, second: str | None, within: list[str]
) -> tuple[list[Results], tuple[str | dict[str, str], str | dict[str, str]] | None]:
    """The sweeps that a comparison is of, and its sides; None with one side only."""
    if within:
        if second is None:
            raise UserError("B is needed with --in: what A is compared with there")
        return read(within), (first, second)
    from orchestrator.store.locate import existing_outputs

    if second is None:
        return read([first]), None
    for output in (first, second):
        if len(existing_outputs([output])) > 1:
            raise UserError(f"{output} is several output folders; with --in they are looked at together")
    results = read([first, second])
    if len(results) < 2:
        raise UserError(f"{first} and {second} are the same output folder")
    return results, ({"sweep": results[0].sweep}, {"sweep": results[1].sweep})
