"""Tables as a page in HTML that stands alone, or a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pyarrow as pa

from orchestrator.results.tables import RobustnessTable
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import Columns, Format, shown

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em}table{border-collapse:collapse;margin:1em 0}"
    "caption{text-align:left;font-weight:bold}th,td{padding:.2em .7em;border-bottom:1px solid #8884}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}"
)


class HTML(Format):
    def columns(self, columns: Columns) -> str:
        return _page(_columns(columns))

    def part(self, table: pa.Table) -> str:
        """What a page has of any table."""
        return _columns(Columns.of(table))

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return _page(self.fragment(tables))

    def fragment(self, tables: Sequence[RobustnessTable]) -> str:
        """What a page has of robustness tables, to be put into another: no style sheet, nothing fetched."""
        return "\n".join(map(self._robustness, tables))

    def _robustness(self, table: RobustnessTable) -> str:
        names, numeric = words.header(table)
        first = words.first_entry(table)
        rows = []
        for row, texts in zip(table.rows, words.rows(table, self.digits), strict=True):
            cells = list(map(escape, texts))
            for i, entry in enumerate(row.entries, first):
                if entry is not None and entry.best:
                    cells[i] = f"<strong>{cells[i]}</strong>"
            rows.append(cells)
        said = [words.caption(table)]
        if best := words.said_of_best(table):
            said.append(best)
        return f"{_table(words.title(table), names, rows, numeric)}\n<p>{escape('; '.join(said))}</p>"


def _columns(columns: Columns) -> str:
    rows = [[escape(shown(value)) for value in row] for row in columns.rows]
    return _table("", columns.names, rows, columns.numeric)


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """`rows` are HTML already, all else is text."""
    styles = [' style="text-align:right"' if right else ' style="text-align:left"' for right in numeric]
    head = "".join(
        f'<th scope="col"{style}>{escape(name)}</th>' for name, style in zip(names, styles, strict=True)
    )
    body = "\n".join(
        f"<tr>{''.join(f'<td{style}>{cell}</td>' for cell, style in zip(row, styles, strict=True))}</tr>"
        for row in rows
    )
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _page(body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>robustsweep</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
