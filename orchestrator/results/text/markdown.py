"""Tables in GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.results.tables import RobustnessTable
from orchestrator.results.text import robustness as words
from orchestrator.results.text.base import Columns, Format, shown


class Markdown(Format):
    def columns(self, columns: Columns) -> str:
        return _table(columns.names, [list(map(shown, row)) for row in columns.rows], columns.numeric)

    def robustness(self, tables: Sequence[RobustnessTable]) -> str:
        return "\n".join(map(self._robustness, tables))

    def _robustness(self, table: RobustnessTable) -> str:
        names, numeric = words.header(table)
        body = _table(names, words.rows(table, self.digits), numeric)
        return f"### {words.title(table)}\n\n{body}\n{words.caption(table)}\n"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    rule = ["---:" if right else "---" for right in numeric]
    lines = [list(map(_escaped, names)), rule, *(list(map(_escaped, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\r", "").replace("\n", "<br>")
