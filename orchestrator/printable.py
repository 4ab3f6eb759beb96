"""Texts on a terminal: names, errors and kept records may be anybody's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Control codes but for line ends and tabs, and what has text read in another order than it is written in.
MOVING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text with its control codes spelt as in Python, `\\x1b`: none is obeyed."""
    return MOVING.sub(lambda found: ascii(found[0])[1:-1], text)


class SafeConsole(Console):
    """A console on which no text moves the cursor, names the window or turns round what is read.

    Rich's own codes are no part of texts.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
