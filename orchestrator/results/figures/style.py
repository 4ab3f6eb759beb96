"""How things are told apart in figures, by everybody and in greyscale. Light: no matplotlib.

A model has a colour and a marker of its own, a defence a line style; where there is one model, a defence has
all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that people of any colour vision tell apart (Okabe and Ito, 2008; without the yellow, which is too
light for lines on white)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p")
"""Shapes of points, in matplotlib's letters. There are more than colours, so that no pair of both comes back
soon."""

DASHES: tuple[tuple[float, ...], ...] = (
    (),  # a solid line
    (4, 1.6),
    (1, 1.3),
    (6, 1.6, 1, 1.6),
    (6, 1.6, 1, 1.6, 1, 1.6),
    (9, 2.5),
)
"""Line styles: lengths of dash and gap in widths of the line, by turns."""

SEQUENTIAL = "cividis"
"""The colour map of shares: its lightness rises evenly, for people of any colour vision."""

INK, QUIET, EDGE = "#1a1a1a", "#595959", "#b3b3b3"
"""Of text, of what is said beside it, of lines that only lead the eye."""

FONT_SIZES = {"title": 7.5, "text": 7.0, "small": 6.0}
"""In points: as of footnotes in a paper, where a figure is as wide as a column."""

COLUMN, PAGE = 3.3, 6.9
"""Widths of a column and of a page of two columns, in inches."""


class Look(NamedTuple):
    """What a series is drawn with."""

    colour: str
    marker: str
    dashes: tuple[float, ...]


def looks(series: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Look]:
    """A look for each (model, defence), in their order; of one model alone, defences have all of it."""
    models = list(dict.fromkeys(model for model, _ in series))
    defences = list(dict.fromkeys(defence for _, defence in series))
    if len(models) == 1:
        return {
            (model, defence): Look(
                PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)]
            )
            for i, (model, defence) in enumerate(dict.fromkeys(series))
        }
    return {
        (model, defence): Look(
            PALETTE[models.index(model) % len(PALETTE)],
            MARKERS[models.index(model) % len(MARKERS)],
            DASHES[defences.index(defence) % len(DASHES)],
        )
        for model, defence in series
    }


def contrast(one: str, other: str) -> float:
    """How well two colours (`#rrggbb`, or white) are told apart, 1 to 21 (the ratio of WCAG 2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    text = "ffffff" if colour == "white" else colour.removeprefix("#")
    parts = [int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
