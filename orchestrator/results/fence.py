"""What a query may name: its syntax tree is walked before it runs."""

from __future__ import annotations

import json
import re
import string
from typing import Any

import duckdb

from orchestrator.errors import QueryError, did_you_mean

VIEWS = (
    *("examples", "cells", "worst_case", "distances", "victims", "history", "failures", "checks"),
    *("strengthened", "transfer", "transferred", "certified", "certified_accuracy"),
    "attacks",
)

TABLE_FUNCTIONS = ("generate_series", "range", "unnest")
"""The functions that a query may select from; all others read files, settings or DuckDB's internals."""

ALLOWED = f"a query is one SELECT over the views {', '.join(VIEWS)}"

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def checked(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The statement of `sql`, once it is known to be one SELECT that names only what is allowed.

    Raises QueryError where it is not, and duckdb.Error where it is no SQL.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        found = f"{len(statements)} statements" if statements else "no statement"
        raise QueryError(f"{found}: {ALLOWED}")
    statement = statements[0]
    if statement.type != duckdb.StatementType.SELECT:
        raise QueryError(f"{_kind(statement)} is not allowed: {ALLOWED}")
    text = statement.query
    serialised = connection.execute("SELECT json_serialize_sql($sql)", {"sql": text}).fetchall()[0][0]
    try:
        tree = json.loads(serialised)
        if tree["error"]:
            raise QueryError(f"{tree['error_message']}: {ALLOWED}")
        _check(tree["statements"], frozenset())
    except RecursionError:
        raise QueryError(
            "the query is nested too deeply: write it with fewer brackets and operators"
        ) from None
    return text


def _kind(statement: duckdb.Statement) -> str:
    """What a statement that is no SELECT is, in the words that its author used."""
    if statement.type == duckdb.StatementType.MULTI:
        return "PIVOT without IN (…)"
    return str(statement.query.split()[0].upper().rstrip(";"))


def _check(tree: Any, subqueries: frozenset[str]) -> None:
    """Raise QueryError if anything in a syntax tree names a table, function or command not allowed.

    `subqueries` are the names of WITH that mean their subqueries here. Elsewhere DuckDB takes the same name
    for something of its catalog, so it has to be known where each of them holds: behind its own definition
    and below the query that it belongs to, and in itself only where that goes round and round.
    """
    if isinstance(tree, list):
        for child in tree:
            _check(child, subqueries)
    if not isinstance(tree, dict):
        return
    _check_node(tree, subqueries)
    for entry in tree.get("cte_map", {}).get("map", ()):
        _check(entry["value"], subqueries)
        subqueries |= {folded(entry["key"])}
    recursive = tree.get("type") == "RECURSIVE_CTE_NODE"
    for key, child in tree.items():
        if key != "cte_map":
            _check(
                child, subqueries | {folded(tree["cte_name"])} if recursive and key == "right" else subqueries
            )


def folded(name: str) -> str:
    """A name as DuckDB compares it: Unicode's own rules would make one name of more than it does."""
    return name.translate(_LOWER)


def _check_node(node: dict[str, Any], subqueries: frozenset[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        path = [node[part] for part in ("catalog_name", "schema_name", "table_name") if node.get(part)]
        name = folded(path[-1])
        if len(path) > 1 or (name not in VIEWS and name not in subqueries):
            near = did_you_mean(name, [*VIEWS, *sorted(subqueries)])
            raise QueryError(f'there is no view "{".".join(path)}"; {near}{ALLOWED}')
    elif kind == "TABLE_FUNCTION":
        name = node["function"].get("function_name", "")
        if folded(name) not in TABLE_FUNCTIONS:
            raise QueryError(
                f"{name}() is not allowed after FROM (only {', '.join(TABLE_FUNCTIONS)}): {ALLOWED}"
            )
    elif kind == "SHOW_REF" and not node.get("query") and node.get("table_name") != '"tables"':
        raise QueryError(f"only SHOW TABLES and DESCRIBE are allowed of that kind: {ALLOWED}")
    elif isinstance(kind, str) and re.fullmatch(r"(INSERT|UPDATE|DELETE|MERGE)\w*_NODE", kind):
        raise QueryError(f"{kind.partition('_')[0]} is not allowed: {ALLOWED}")
