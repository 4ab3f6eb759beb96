"""SQL over an output folder: the views, and nothing else of the machine.

Two fences, each enough for most escapes: DuckDB's own settings, locked, close files, network, extensions and
Python variables; and before a statement runs, its syntax tree may name only the views and harmless functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pyarrow as pa

from orchestrator.errors import QueryError, did_you_mean
from orchestrator.results import views
from orchestrator.results.measured import MEASURED
from orchestrator.results.schemas import Results
from workers.machine import available_cpus

VIEWS = ("examples", "cells", "worst_case", "victims", "history", "failures")

TABLE_FUNCTIONS = ("generate_series", "range", "unnest")
"""The functions that a query may select from; all others read files, settings or DuckDB's internals."""

_ALLOWED = f"a query is one SELECT over the views {', '.join(VIEWS)}"


def connect(
    results: Results, *, cells: bool = True, memory_limit: str = "2GB", threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views `VIEWS` over `results`, its configuration closed and locked.

    `memory_limit` caps DuckDB (the Parquet reader's buffers come on top; nothing spills to disk); `threads`
    defaults to the CPUs that this process may use. Rows are read from the accepted shards as a query needs
    them. Take results with `connection.sql(...).to_arrow_table()`.
    """
    if threads is None:
        threads = available_cpus()
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
    connection.execute("CREATE SCHEMA input; USE input")
    measured = results.measured() if cells else MEASURED.empty_table()
    connection.from_arrow(measured).create_view("measured")
    for name in ("wanted", "coverage", "victims", "failures"):
        connection.from_arrow(getattr(results, name)).create_view(name)
    connection.execute("USE main")
    connection.from_arrow(results.examples).select(*views.EXAMPLE_COLUMNS).create_view("examples")
    connection.from_arrow(results.history).create_view("history")
    connection.execute("CREATE VIEW failures AS FROM input.failures")
    for name, sql in (("cells", views.CELLS), ("worst_case", views.WORST_CASE), ("victims", views.VICTIMS)):
        connection.execute(f"CREATE VIEW {name} AS {sql}")
    connection.execute("SET lock_configuration = true")
    return connection


def run_query(
    results: Results, sql: str, *, memory_limit: str = "2GB", threads: int | None = None
) -> pa.Table:
    """Run one SELECT (or `WITH … SELECT`, `FROM …`, `DESCRIBE view`) over the views of `results`.

    Sums and other whole numbers come as int64 where they fit. Raises QueryError, with a message of one
    line, for anything that is not one SELECT over the views, and for whatever DuckDB says is wrong with it.
    """
    cells = "cells" in sql.lower()  # else what the view stands on need not be measured
    with connect(results, cells=cells, memory_limit=memory_limit, threads=threads) as connection:
        try:
            return _integers(_interruptibly(connection, _checked(connection, sql)))
        except duckdb.Error as error:
            raise QueryError(_one_line(error)) from None


def _interruptibly(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run a statement such that Ctrl-C ends it: DuckDB itself may look for signals only at the end."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: connection.sql(sql).to_arrow_table())
        try:
            return running.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _checked(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The statement of `sql`, once it is known to be one SELECT that names only what is allowed."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        found = f"{len(statements)} statements" if statements else "no statement"
        raise QueryError(f"{found}: {_ALLOWED}")
    statement = statements[0]
    if statement.type != duckdb.StatementType.SELECT:
        raise QueryError(f"{_kind(statement)} is not allowed: {_ALLOWED}")
    text = statement.query
    serialised = connection.execute("SELECT json_serialize_sql($sql)", {"sql": text}).fetchall()[0][0]
    tree = json.loads(serialised)
    if tree["error"]:
        raise QueryError(f"{tree['error_message']}: {_ALLOWED}")
    nodes = list(_nodes(tree["statements"]))
    subqueries = {entry["key"].lower() for node in nodes for entry in node.get("cte_map", {}).get("map", ())}
    for node in nodes:
        _check(node, subqueries)
    return text


def _kind(statement: duckdb.Statement) -> str:
    """What a statement that is no SELECT is, in the words that its author used."""
    if statement.type == duckdb.StatementType.MULTI:
        return "PIVOT without IN (…)"
    return str(statement.query.split()[0].upper().rstrip(";"))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed JSON document, outermost first."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)


def _check(node: dict[str, Any], subqueries: set[str]) -> None:
    """Raise QueryError if a node of the syntax tree names a table, function or command not allowed."""
    kind = node.get("type")
    if kind == "BASE_TABLE":
        path = [node[part] for part in ("catalog_name", "schema_name", "table_name") if node.get(part)]
        name = str(path[-1]).lower()
        if len(path) > 1 or (name not in VIEWS and name not in subqueries):
            near = did_you_mean(name, [*VIEWS, *sorted(subqueries)])
            raise QueryError(f'there is no view "{".".join(path)}"; {near}{_ALLOWED}')
    elif kind == "TABLE_FUNCTION":
        name = node["function"].get("function_name", "")
        if name.lower() not in TABLE_FUNCTIONS:
            raise QueryError(
                f"{name}() is not allowed after FROM (only {', '.join(TABLE_FUNCTIONS)}): {_ALLOWED}"
            )
    elif kind == "SHOW_REF" and not node.get("query") and node.get("table_name") != '"tables"':
        raise QueryError(f"only SHOW TABLES and DESCRIBE are allowed of that kind: {_ALLOWED}")
    elif isinstance(kind, str) and re.fullmatch(r"(INSERT|UPDATE|DELETE|MERGE)\w*_NODE", kind):
        raise QueryError(f"{kind.partition('_')[0]} is not allowed: {_ALLOWED}")


def _one_line(error: duckdb.Error) -> str:
    """DuckDB's message without its class and the picture of the statement, candidates kept."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return "the query needs more memory than it is allowed: aggregate or filter more"
    text = str(error).partition("\n\nLINE ")[0].partition(": ")[2] or str(error)
    line = " ".join(text.split())
    if isinstance(error, duckdb.PermissionException):
        return f"{line}: {_ALLOWED}"
    return line


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
