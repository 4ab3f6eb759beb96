"""The tables that `robustsweep table` shows beside those of robustness: each for people with its caption, for
programs the rows behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from orchestrator.console import make_console, text_form
from orchestrator.results.attacked import chosen_attacks
from orchestrator.results.bounds import chosen_certificates
from orchestrator.results.matrix import chosen_transfers, matrix
from orchestrator.results.per_class import class_records
from orchestrator.results.schemas import Results
from orchestrator.results.text import certified as certified_words
from orchestrator.results.text import per_class as class_words
from orchestrator.results.text import quality as quality_words
from orchestrator.results.text import transfer as transfer_words
from orchestrator.results.text.base import Columns

Wanted = Mapping[str, Sequence[str]]
"""Names that are asked for, by what they are of."""


def transfers(results: Sequence[Results], wanted: Wanted, metric: str, format: str, digits: int) -> None:
    """Print who falls to whose images, as a matrix."""
    rows, own, table = chosen_transfers(results, wanted)
    found, words = matrix(rows, own, metric), transfer_words
    _print(
        table, lambda whole: words.columns(found, digits, whole=whole), words.caption(found), format, digits
    )


def certified(results: Sequence[Results], wanted: Wanted, format: str, digits: int) -> None:
    """Print what is certified, beside what attacks have left."""
    (rows, table), words = chosen_certificates(results, wanted), certified_words
    _print(table, lambda whole: words.columns(rows, digits, whole=whole), words.caption(rows), format, digits)


def quality(results: Sequence[Results], wanted: Wanted, format: str, digits: int) -> None:
    """Print how good attacks are."""
    (rows, table), words = chosen_attacks(results, wanted), quality_words
    _print(table, lambda whole: words.columns(rows, digits, whole=whole), words.caption(rows), format, digits)


def classes(
    results: Sequence[Results], wanted: Wanted, epsilon: float | None, format: str, digits: int
) -> None:
    """Print numbers class by class."""
    records, rows = class_records(results, wanted, epsilon)
    form = text_form(format, digits=digits)
    if form.for_programs:
        print(form.table(records), end="")
        return
    print(form.columns(class_words.columns(records, rows, digits)), end="")
    console = make_console(stderr=format != "rich")
    console.print(class_words.caption(records), highlight=False, soft_wrap=True)


def _print(
    table: pa.Table, columns: Callable[[bool], Columns], caption: str, format: str, digits: int
) -> None:
    """A table for people with its caption; on standard error where the format has no place for that, and
    `columns` are then those of a table that says all of it. For programs, the rows behind it."""
    form, prose = text_form(format, digits=digits), format in ("rich", "md")
    if form.for_programs:
        print(form.table(table), end="")
        return
    if (whole := form.captioned(columns(False), caption)) is not None:
        print(whole, end="")
        return
    print(form.columns(columns(not prose)), end="\n" if format == "md" else "")
    console = make_console(stderr=not prose)
    console.print(caption, highlight=False, soft_wrap=not console.is_terminal, markup=False)
