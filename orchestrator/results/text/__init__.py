"""Tables as text: for people (`rich`, `md`, `html`, `latex`) and for programs (`csv`, `json`).

For programs a number is itself: null is an empty CSV field, where an empty text is `""`, and JSON null; NaN
and infinities are `nan`, `inf` and `-inf` in CSV, and null in JSON, which has no word for them. For people
null is `–`, and a number has six digits. Light to import: a format is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.results.text.base import Format

FORMATS: dict[str, str] = {
    "rich": "orchestrator.results.text.terminal:Terminal",
    "md": "orchestrator.results.text.markdown:Markdown",
    "csv": "orchestrator.results.text.csv:CSV",
    "json": "orchestrator.results.text.json:JSON",
    "html": "orchestrator.results.text.html:HTML",
    "latex": "orchestrator.results.text.latex:LaTeX",
}
"""A format's name -> "module:Class", a `Format`."""

BINARY = ("parquet", "arrow")
"""The formats that are no text: `results.export` writes them to a file."""


def text_format(name: str, *, colour: bool = False, width: int | None = None, digits: int = 1) -> Format:
    """The format of that name; ValueError for another.

    `colour` and `width` (columns, into which a table is made to fit) are a terminal's: without them there are
    no control codes, and a table is as wide as it needs to be. `digits`: of percentages, behind the point.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    module, _, kind = FORMATS[name].partition(":")
    made: Format = getattr(importlib.import_module(module), kind)(colour=colour, width=width, digits=digits)
    return made
