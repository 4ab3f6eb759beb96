"""What every figure is held to: all of its text is inside, and none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from orchestrator.results.figures.page import styled

_TOUCH = 0.5  # points by which boxes, which have room above and below their letters, may overlap


def faults(figure: Figure) -> list[str]:
    """Texts that leave the figure, and pairs of texts that overlap."""
    boxes = [(text, text.get_window_extent()) for text in _texts(figure)]
    return [*_outside(figure, boxes), *_over(figure, boxes)]


def _outside(figure: Figure, boxes: Sequence[tuple[Text, Bbox]]) -> Iterator[str]:
    whole = figure.bbox
    for text, box in boxes:
        if box.x0 < -1 or box.y0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1:
            yield f"outside: {text.get_text()!r}"


def _over(figure: Figure, boxes: Sequence[tuple[Text, Bbox]]) -> Iterator[str]:
    touch = _TOUCH * figure.dpi / 72
    for (one, a), (other, b) in combinations(boxes, 2):
        if one.get_rotation() % 90 or other.get_rotation() % 90:
            continue  # boxes of slanted texts say nothing
        if min(a.x1, b.x1) - max(a.x0, b.x0) > touch and min(a.y1, b.y1) - max(a.y0, b.y0) > touch:
            yield f"overlap: {one.get_text()!r} and {other.get_text()!r}"


def _texts(figure: Figure) -> list[Text]:
    with styled():
        figure.draw_without_rendering()
    # A tick that is beyond its axis is kept, but not drawn.
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks() if axes.axison else []
            every = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            hidden |= {text for tick in every if tick not in drawn for text in (tick.label1, tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text not in hidden and text.get_visible() and text.get_text().strip()
    ]
