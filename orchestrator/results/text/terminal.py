"""Tables drawn for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.results.tables import Entry, RobustnessTable
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import Columns, Format, shown

_UNBOUNDED = 100_000  # columns: wider than any table, so that nothing is cut or wrapped


class Terminal(Format):
    def columns(self, columns: Columns) -> str:
        rows = [[Text(shown(value)) for value in row] for row in columns.rows]
        return self._print(_drawn(columns.names, rows, columns.numeric))

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return self._print(Group(*map(_robustness, tables)))

    def _print(self, drawn: RenderableType) -> str:
        stream = io.StringIO()
        console = Console(
            file=stream,
            width=self.width or _UNBOUNDED,
            color_system="standard" if self.colour else None,
            force_terminal=self.colour,
            legacy_windows=False,
        )
        console.print(drawn)
        return "\n".join(line.rstrip() for line in stream.getvalue().strip("\n").split("\n")) + "\n"


def _robustness(table: RobustnessTable) -> Group:
    names, numeric = words.header(table)
    rows = [
        [
            *map(Text, words.labels(row)),
            Text(words.percent(row.clean_accuracy, row.clean_sd)),
            *(Text(words.entry_text(entry), style=_style(entry)) for entry in row.entries),
            Text(words.examples(row)),
        ]
        for row in table.rows
    ]
    drawn = _drawn(names, rows, numeric)
    return Group(Text(words.title(table), style="bold"), drawn, Text(words.caption(table)), "")


def _style(entry: Entry | None) -> str:
    """Colours of the terminal's own palette that can be read on black and on white alike."""
    if entry is None or entry.value is None:
        return "dim"
    return "green" if entry.value >= 2 / 3 else "red" if entry.value < 1 / 3 else ""


def _drawn(names: Sequence[str], rows: Sequence[Sequence[Text]], numeric: Sequence[bool]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, pad_edge=False)
    for name, right in zip(names, numeric, strict=True):
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
