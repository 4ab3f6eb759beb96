"""Tables drawn for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich.text import Text

from orchestrator.printable import SafeConsole, printable
from orchestrator.results.metrics import ROBUST_ACCURACY
from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text import layout
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import Columns, Format, shown
from orchestrator.results.text.layout import Column, Line


class Terminal(Format):
    """Within the terminal's width, if it has one: by columns, or where those do not fit, by rows."""

    def columns(self, columns: Columns) -> str:
        cells = [[shown(row[i]) for row in columns.rows] for i in range(len(columns.names))]
        drawn = [
            Column(name, texts, right=right, breaks=columns.breaks)
            for name, texts, right in zip(columns.names, cells, columns.numeric, strict=True)
        ]
        lines = layout.table(drawn, self.width)
        if lines is None and not columns.rows:
            lines = iter(layout.wrapped(f"no rows of {', '.join(columns.names)}", self.width))
        return self._text(lines or layout.blocks(drawn, self.width))

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return self._text(line for table in tables for line in self._robustness(table)).rstrip("\n") + "\n"

    def _robustness(self, table: RobustnessTable) -> Iterator[Line]:
        """As it is; else without columns that say the same everywhere, labels broken; else by rows."""
        columns = _columns(table, self.digits)
        said: dict[str, str] = {}
        drawn = layout.table(columns, self.width)
        if not drawn:
            said = words.constant(table, self.digits)
            columns = [column for column in columns if column.name not in said]
            broken = [
                column for column in _columns(table, self.digits, broken=True) if column.name not in said
            ]
            drawn = layout.table(columns, self.width) or layout.table(broken, self.width)
        yield from (Text(line, style="bold") for line in layout.wrapped(words.title(table), self.width))
        yield from drawn or self._by_row(columns)
        yield from layout.wrapped(words.caption(table, said), self.width)
        yield ""

    def _by_row(self, columns: Sequence[Column]) -> Iterator[Line]:
        labels = [column for column in columns if not column.right]
        numbers = [column for column in columns if column.right]
        widest = max(len(cell) for column in numbers for cell in column.cells)
        names = max(len(column.name) for column in numbers)
        yield ""
        for i in range(len(columns[0].cells)):
            name = ", ".join(column.cells[i] for column in labels)
            yield from (Text(line, style="bold") for line in layout.wrapped(name, self.width))
            for column in numbers:
                style = column.styles[i] if column.styles else ""
                cell = column.cells[i]
                yield Text(f"  {column.name:{names}}   {'':{widest - len(cell)}}").append(cell, style=style)
            yield ""

    def _text(self, lines: Iterable[Line]) -> str:
        stream = io.StringIO()
        console = SafeConsole(
            file=stream,
            color_system="standard" if self.colour else None,
            force_terminal=self.colour,
            legacy_windows=False,
        )
        for line in lines:
            if isinstance(line, Text):
                console.print(line, soft_wrap=True)
            else:
                stream.write(f"{printable(line)}\n")
        return stream.getvalue()


def _columns(table: RobustnessTable, digits: int, *, broken: bool = False) -> list[Column]:
    """Its columns; `broken`: labels and the marks of holes may be broken at their spaces, numbers never."""
    names, numeric = words.header(table)
    rows, notes = words.rows(table, digits), words.footnotes(table)
    columns = [
        Column(name, [row[i] for row in rows], right=right, breaks=broken and not right)
        for i, (name, right) in enumerate(zip(names, numeric, strict=True))
    ]
    for i in range(len(table.epsilons)):
        entries = [row.entries[i] for row in table.rows]
        texts = [words.entry_text(entry, notes, table, digits) for entry in entries]
        cells = [
            text.replace(" ", "\n") if broken and entry and entry.mark else text
            for text, entry in zip(texts, entries, strict=True)
        ]
        place = words.first_entry(table) + i
        styles = [_style(entry, row, table) for entry, row in zip(entries, table.rows, strict=True)]
        columns[place] = replace(columns[place], cells=cells, styles=styles)
    return columns


def _style(entry: Entry | None, row: Row, table: RobustnessTable) -> str:
    """Colours of the terminal's own palette that can be read on black and on white alike."""
    if entry is not None and entry.mark == "wrong":
        return "bold red"
    if entry is None or entry.value is None:
        return "dim"
    if row.targeted or table.metric != ROBUST_ACCURACY:  # neither much nor little of it
        return ""
    return "green" if entry.value >= 2 / 3 else "red" if entry.value < 1 / 3 else ""
