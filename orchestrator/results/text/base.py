"""What a text format is, and values as those formats need them."""

from __future__ import annotations

import base64
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from orchestrator.printable import printable
from orchestrator.results.records import robustness_records
from orchestrator.results.tables import RobustnessTable

NO_VALUE = "–"


@dataclass(frozen=True, slots=True)
class Columns:
    """A table by rows: names (repeated ones numbered), values, and which columns hold numbers.

    `breaks`: what stands in it, and its names, may be broken at spaces to fit a width.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numeric: Sequence[bool]
    breaks: bool = False

    @classmethod
    def of(cls, table: pa.Table) -> Columns:
        rows = [list(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
        numeric = [
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            for kind in table.schema.types
        ]
        return cls(unique(table.column_names), rows, numeric)

    @classmethod
    def parts(cls, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Columns]:
        """A table that comes in batches; the first part has no rows, so that there always is one."""
        yield cls.of(schema.empty_table())
        yield from (cls.of(pa.Table.from_batches([batch], schema)) for batch in batches)


class Format(ABC):
    """A way to write tables as text that ends in a newline."""

    piecemeal = False
    """Whether `pieces` holds one part at a time, rather than all of them."""
    for_programs = False

    def __init__(self, *, colour: bool = False, width: int | None = None, digits: int = 1) -> None:
        self.colour, self.width, self.digits = colour, width, digits

    @abstractmethod
    def columns(self, columns: Columns) -> str:
        """Any table."""

    @abstractmethod
    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        """Robustness tables: in percent for people, as shares for programs."""

    def captioned(self, columns: Columns, caption: str) -> str | None:
        """A table with its caption in it; None where the format has no place for one."""
        return None

    def table(self, table: pa.Table) -> str:
        return self.columns(Columns.of(table))

    def pieces(self, parts: Iterable[Columns]) -> Iterator[str]:
        """The text of a table that comes in parts, at least one; together they are that of the whole."""
        first, *others = parts
        rows = [row for part in (first, *others) for row in part.rows]
        yield self.columns(replace(first, rows=rows))


class ForPrograms(Format):
    """A format that programs read: robustness tables come in long form (`records.RECORDS`)."""

    for_programs = True

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return self.table(robustness_records(tables))


class Spelt(Format):
    """Another format on a terminal, which is to obey no control code of a name or an error in it."""

    def __init__(self, inner: Format) -> None:
        self._inner = inner
        self.piecemeal, self.for_programs = inner.piecemeal, inner.for_programs

    def columns(self, columns: Columns) -> str:
        return printable(self._inner.columns(columns))

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return printable(self._inner.robustness(tables))

    def captioned(self, columns: Columns, caption: str) -> str | None:
        text = self._inner.captioned(columns, caption)
        return None if text is None else printable(text)

    def table(self, table: pa.Table) -> str:
        return printable(self._inner.table(table))

    def pieces(self, parts: Iterable[Columns]) -> Iterator[str]:
        return map(printable, self._inner.pieces(parts))


def constant(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of some columns that are the same in every row."""
    return [name for name in names if len({row[name] for row in rows}) == 1]


def shown(value: Any) -> str:
    """A value as a person reads it."""
    value = plain(value)
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return json.dumps(finite(value), ensure_ascii=False) if isinstance(value, dict) else str(value)


def plain(value: Any) -> Any:
    """A Python value of any Arrow type, as one that JSON knows (or a float that it does not)."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time | datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def finite(value: Any) -> Any:
    """NaN and infinities as None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


def unique(names: Sequence[str]) -> list[str]:
    """Column names, repeated ones numbered: a query may ask for two of the same name."""
    taken: list[str] = []
    for name in names:
        unique, i = name, 1
        while unique in taken:
            i += 1
            unique = f"{name}_{i}"
        taken.append(unique)
    return taken
