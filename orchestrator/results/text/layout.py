"""Tables in a width: columns side by side where they fit, a block for each row where they do not.

What may break breaks at spaces, and nothing breaks anywhere else: half a number reads like another number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from orchestrator.printable import MOVING

_GAP = "   "

Line = str | Text
"""A line as it is, or with styles."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, its cells one for each row."""

    name: str
    cells: Sequence[str]
    right: bool = False  # aligned so, as numbers are
    breaks: bool = False  # may be broken at spaces to fit
    styles: Sequence[str] = ()  # Rich's, one for each cell; or none


def table(columns: Sequence[Column], width: int | None = None) -> Iterator[Line] | None:
    """The lines of a table, at most `width` wide; None where it does not fit."""
    widths = _widths(columns, width)
    return None if widths is None else _table(columns, widths)


def blocks(columns: Sequence[Column], width: int | None = None) -> Iterator[str]:
    """The lines of a block for each row, `name: value`; only a word wider than `width` sticks out."""
    indent = max((_size(column.name) for column in columns), default=0) + 2
    for row in range(_height(columns)):
        if row:
            yield ""
        for column in columns:
            first, *others = wrapped(clean(column.cells[row]), width and max(width - indent, 1))
            yield f"{_padded(f'{column.name}:', indent)}{first}".rstrip()
            yield from (f"{'':{indent}}{line}".rstrip() for line in others)


def wrapped(text: str, width: int | None) -> list[str]:
    """The lines of a text, broken at spaces where they are wider than `width`."""
    if width is None:
        return text.split("\n")
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\s*\S+", paragraph):
            if line and _size(line + word) > width:
                lines.append(line)
                line = ""
                word = word.lstrip()
            line += word
        lines.append(line)
    return lines


def clean(text: str) -> str:
    """A text without tabs and control codes."""
    return MOVING.sub("", text).expandtabs()


def _widths(columns: Sequence[Column], width: int | None) -> list[int] | None:
    """A width for each column: what it needs unbroken, then less for the widest of those that break."""
    widths = [_widest(column, lambda text: text.split("\n")) for column in columns]
    if width is None:
        return widths
    room = width - len(_GAP) * (len(columns) - 1)
    pairs = zip(columns, widths, strict=True)
    least = [_widest(column, str.split) if column.breaks else whole for column, whole in pairs]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i in range(len(columns)) if widths[i] > least[i]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _widest(column: Column, parts: Callable[[str], list[str]]) -> int:
    return max(
        (_size(part) for text in (column.name, *column.cells) for part in parts(clean(text))), default=0
    )


def _table(columns: Sequence[Column], widths: Sequence[int]) -> Iterator[Line]:
    for line in _row(columns, widths, [column.name for column in columns]):
        yield Text(_joined(line), style="bold")
    yield "─" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    for i in range(_height(columns)):
        styles = [column.styles[i] if column.styles else "" for column in columns]
        for line in _row(columns, widths, [column.cells[i] for column in columns]):
            yield _styled(line, styles) if any(styles) else _joined(line)


def _row(columns: Sequence[Column], widths: Sequence[int], texts: Sequence[str]) -> Iterator[list[str]]:
    """The lines of one row, each as what stands in its columns, padded."""
    cells = [wrapped(clean(text), width) for text, width in zip(texts, widths, strict=True)]
    for i in range(max(map(len, cells), default=0)):
        yield [
            _padded(lines[i] if i < len(lines) else "", width, right=column.right)
            for column, width, lines in zip(columns, widths, cells, strict=True)
        ]


def _joined(line: Sequence[str]) -> str:
    return _GAP.join(line).rstrip()


def _styled(line: Sequence[str], styles: Sequence[str]) -> Text:
    text = Text()
    for padded, style in zip(line, styles, strict=True):
        word = padded.strip()
        before, _, after = padded.partition(word) if word else (padded, "", "")
        text.append(f"{_GAP if text else ''}{before}").append(word, style=style or None).append(after)
    text.rstrip()
    return text


def _padded(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - _size(text))
    return space + text if right else text + space


def _height(columns: Sequence[Column]) -> int:
    return len(columns[0].cells) if columns else 0


def _size(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)
