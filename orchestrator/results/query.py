"""SQL over an output folder: the views, and nothing else of the machine.

Two fences, each enough for most escapes: DuckDB's own settings, locked, close files, network, extensions and
Python variables; and before a statement runs, its syntax tree may name only the views and harmless functions
(`orchestrator.results.fence`).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from orchestrator.errors import QueryError
from orchestrator.results import checks, views
from orchestrator.results.certified import BOUNDS, bounds
from orchestrator.results.checks.evidence import Evidence, gather
from orchestrator.results.fence import ALLOWED, VIEWS, checked
from orchestrator.results.measured import ATTACKS, MEASURED
from orchestrator.results.quality import QUALITY, quality
from orchestrator.results.schemas import Results
from orchestrator.results.strengthened import STRENGTHENED, strengthened
from orchestrator.results.transfers import BEYOND, beyond
from orchestrator.results.worst_case import WORST_CASES, worst_cases
from workers.machine import available_cpus

_ROWS = 65_536  # of a batch
_LOOK = 0.1  # seconds between looks whether a query is to be ended

_T = TypeVar("_T")


Several = Results | Sequence[Results]
"""One output folder, or several that are called differently."""


def connect(
    results: Several,
    *,
    named: Collection[str] = VIEWS,
    cells: bool = True,
    memory_limit: str = "2GB",
    threads: int | None = None,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with those views of `VIEWS` that are `named` over `results`, its configuration
    closed and locked. The fewer there are, the sooner it is there.

    The first column of each is the `sweep` that a row is of. Ids may be the same in several sweeps, so each
    has its views, and is checked, by itself. Without `cells` the views of `views.MEASURED`
    hold nothing that is measured: that takes a while.

    `memory_limit` caps DuckDB (the Parquet reader's buffers come on top; nothing spills to disk); `threads`
    defaults to the CPUs that this process may use. Rows are read from the accepted shards as a query needs
    them. Take results with `connection.sql(...).to_arrow_table()`.
    """
    if threads is None:
        threads = available_cpus()
    try:
        os.getcwd()
    except OSError:  # DuckDB would end the whole process
        raise QueryError("the folder that this process was started in is gone: start it in another") from None
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "enable_external_access": False,
            "temp_directory": "",  # DuckDB lets queries read its temporary folder, external access or not
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # It would draw on whatever terminal there is. In a notebook without ipywidgets it is off, and setting it
    # an error.
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]:
        connection.execute("SET enable_progress_bar = false")
    sweeps = [results] if isinstance(results, Results) else list(results)
    for i, one in enumerate(sweeps):
        # That of the first is called as views call it, for who looks at one sweep and behind its views.
        _create_inputs(connection, one, _inputs(i), views.needed(named), cells=cells)
    connection.execute("USE main")
    for name in named:
        parts = (
            f"SELECT {_text(one.sweep)} AS sweep, * FROM ({_over(views.shown(name), _inputs(i))})"
            for i, one in enumerate(sweeps)
        )
        connection.execute(f"CREATE VIEW {name} AS {' UNION ALL '.join(parts)}")
    connection.execute("SET lock_configuration = true")
    return connection


def _inputs(number: int) -> str:
    """The schema of what the views of a sweep stand on."""
    return f"input{number or ''}"


def _over(sql: str, inputs: str) -> str:
    return sql.replace("input.", f"{inputs}.")


def _create_inputs(
    connection: duckdb.DuckDBPyConnection,
    results: Results,
    inputs: str,
    needed: frozenset[str],
    *,
    cells: bool,
) -> None:
    """What the `needed` views of one sweep stand on, in a schema of its own."""
    connection.execute(f"CREATE SCHEMA {inputs}; USE {inputs}")
    tables = _tables(results, cells=cells)
    for name in tables.keys() & needed:
        connection.from_arrow(tables[name]).create_view(name)
    if "examples" in needed:
        connection.from_arrow(results.examples).select(*views.EXAMPLE_COLUMNS).create_view("examples")
    for name, sql in views.VIEWS.items():
        if name not in needed:
            continue
        if cells and name in views.COMPUTED:
            tables[name] = _computed(connection, name, _over(sql, inputs), tables[views.COMPUTED[name]])
            connection.from_arrow(tables[name]).create_view(name)
        else:
            connection.execute(f"CREATE VIEW {name} AS {_over(sql, inputs)}")
    if not needed.isdisjoint(views.CHECKED):
        judged = checks.judge(gather(results, tables) if cells else Evidence())
        connection.from_arrow(judged.findings).create_view("checks")
        connection.from_arrow(judged.cells).create_view("verdicts")
        connection.from_arrow(judged.worst_cases).create_view("worst_verdicts")


def _tables(results: Results, *, cells: bool) -> dict[str, pa.Table | pads.Dataset]:
    """What views stand on, as it is read and computed; without `cells`, nothing is in what is measured."""
    stronger, others = STRENGTHENED.empty_table(), BEYOND.empty_table()
    measured, attacks, worst = MEASURED.empty_table(), ATTACKS.empty_table(), WORST_CASES.empty_table()
    curves = QUALITY.empty_table()
    if cells:
        measured, attacks = found = results.measured()
        worst = worst_cases(results.wanted, results.coverage, attacks, results.transfers)
        stronger = strengthened(results.wanted, found, worst, results.stronger())
        others = beyond(results.transfers, measured, worst)
        curves = quality(results.wanted, found, worst)
    return {
        "measured": measured,
        "attacks": attacks.drop_columns("closest"),
        "worst_cases": worst,
        "strengthened": stronger,
        "beyond": others,
        "quality": curves,
        "tried": results.transferred,
        "certificate_rows": results.certified,
        "bounds": bounds(results) if cells else BOUNDS.empty_table(),
        **{name: getattr(results, name) for name in _AS_THEY_ARE},
    }


_AS_THEY_ARE = ("wanted", "transfers", "certificates", "coverage", "victims", "failures", "history")

_without_rows: dict[str, pa.Table] = {}
"""Computed views as they are where there is nothing that a row could be of."""


def _computed(connection: duckdb.DuckDBPyConnection, name: str, sql: str, of: pa.Table) -> pa.Table:
    """A view as a table, which has a row for each of `of`: where there is none, nothing is planned."""
    if not of.num_rows and name in _without_rows:
        return _without_rows[name]
    table = connection.sql(sql).to_arrow_table()
    _without_rows[name] = table.schema.empty_table()  # a slice of none would keep all rows in memory
    return table


def _text(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


@dataclass(frozen=True)
class Answer:
    """What a query answers. DuckDB works on a batch when it is asked for, and QueryError may come of that."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]  # to be taken once
    limit: int  # bytes: the memory that the query was allowed

    def held(self, share: int = 1, least: int = 0) -> Iterator[pa.RecordBatch]:
        """The batches, for who holds all of them: QueryError once they are larger than `limit / share`.

        What is made of a batch may be many times its size; `share` leaves room for that. `least`: as how many
        bytes a value counts at the least.
        """
        taken, most = 0, self.limit // share
        for batch in self.batches:
            taken += max(batch.nbytes, least * batch.num_rows * batch.num_columns)
            if taken > most:
                raise QueryError(
                    f"{_TOO_LARGE} (its answer is larger than {most / 1e6:,.0f} MB): aggregate or filter "
                    "more, or write it to a file with --format parquet --out FILE"
                )
            yield batch


@contextmanager
def answering(
    results: Several,
    sql: str,
    *,
    memory_limit: str = "2GB",
    threads: int | None = None,
    seconds: float | None = None,
    ended: threading.Event | None = None,
) -> Iterator[Answer]:
    """Run one SELECT (or `WITH … SELECT`, `FROM …`, `DESCRIBE view`) over the views of `results`.

    Raises QueryError for anything that is not one SELECT over the views, and for whatever DuckDB says is
    wrong with it; also where it takes longer than `seconds`, or `ended` is set. Its message has one line;
    that of a syntax error shows the place as well.
    """
    text = sql.lower()
    named = [view for view in VIEWS if view in text or "show" in text]  # SHOW TABLES is of all
    # Else what the views stand on need not be measured.
    cells = any(view in text for view in views.MEASURED)
    with connect(results, named=named, cells=cells, memory_limit=memory_limit, threads=threads) as connection:
        try:
            (limit,) = connection.execute("SELECT parse_formatted_bytes($1)", [memory_limit]).fetchall()[0]
            statement = checked(connection, sql)
        except duckdb.Error as error:
            raise QueryError(_message(error, sql)) from None
        over, why = threading.Event(), [""]

        def watch() -> None:
            latest = time.monotonic() + (seconds or threading.TIMEOUT_MAX)
            while not over.wait(_LOOK):
                if ended is not None and ended.is_set():
                    why[0] = "the query was ended"
                elif time.monotonic() > latest:
                    why[0] = f"the query took longer than {seconds:.0f} s"
                if why[0]:  # each time: nothing may have run yet that could be interrupted
                    with suppress(duckdb.Error):  # closed meanwhile
                        connection.interrupt()

        with ThreadPoolExecutor(1) as pool:

            def run(work: Callable[[], _T]) -> _T:
                """Interruptibly: DuckDB itself may look for signals only at the end."""
                running = pool.submit(work)
                try:
                    return running.result()
                except KeyboardInterrupt:
                    connection.interrupt()
                    raise
                except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's reader has its own
                    if why[0]:
                        raise QueryError(why[0]) from None
                    raise QueryError(_message(error, sql)) from None

            def batches() -> Generator[pa.RecordBatch]:
                while (batch := run(lambda: next(reader, None))) is not None:
                    yield batch

            if seconds is not None or ended is not None:
                threading.Thread(target=watch, daemon=True).start()
            try:
                reader = run(lambda: connection.sql(statement).to_arrow_reader(_ROWS))
                with closing(batches()) as taken:
                    yield Answer(reader.schema, taken, limit)
            finally:
                over.set()


def check_query(sql: str) -> str:
    """The statement of a query, before there is anything to ask; QueryError where it is not allowed, or where
    it is no SQL."""
    with duckdb.connect(":memory:") as connection:
        try:
            return checked(connection, sql)
        except duckdb.Error as error:
            raise QueryError(_message(error, sql)) from None


def run_query(
    results: Several, sql: str, *, memory_limit: str = "2GB", threads: int | None = None
) -> pa.Table:
    """The whole answer of `answering`; QueryError also where it is larger than `memory_limit`.

    Sums and other whole numbers come as int64 where they fit.
    """
    with answering(results, sql, memory_limit=memory_limit, threads=threads) as answer:
        return _integers(pa.Table.from_batches(answer.held(), answer.schema))


_TOO_LARGE = "the query needs more memory than it is allowed"


def _message(error: Exception, sql: str) -> str:
    """DuckDB's message without its class, candidates kept; the place of a syntax error below it."""
    if isinstance(error, duckdb.OutOfMemoryException) or str(error).startswith("Out of Memory"):
        return f"{_TOO_LARGE}: aggregate or filter more"
    text, _, picture = str(error).partition("\n\nLINE ")
    line = " ".join((text.partition(": ")[2] or text).split())
    if isinstance(error, duckdb.PermissionException):
        return f"{line}: {ALLOWED}"
    if isinstance(error, duckdb.ParserException) and picture:
        return f"{line}, {_place(picture)}"
    column = re.match(r'Referenced column "(.+?)" (was )?not found', line)
    if column and f'"{column[1]}"' in sql:
        return f"{line}; a text takes single quotes: '{column[1]}'"
    return line


def _place(picture: str) -> str:
    """What DuckDB draws behind "LINE ", as "line 3:" with the line and its mark below."""
    number, _, rest = picture.partition(": ")
    words, _, mark = rest.partition("\n")
    indent = len(f"LINE {number}: ")
    return f"line {number}:\n  {words.rstrip()}\n  {mark[indent:].rstrip()}"


def _integers(table: pa.Table) -> pa.Table:
    """Whole decimals (DuckDB's sums of integers) as int64, where every value fits."""
    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                column = table.column(i).cast(pa.int64())
            except pa.ArrowInvalid:
                continue
            table = table.set_column(i, field.with_type(pa.int64()), column)
    return table
