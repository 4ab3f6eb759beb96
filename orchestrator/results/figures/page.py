"""A figure of several panels of one size, a legend below them, and below that what has to be said."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache, lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from orchestrator.results.figures.style import COLUMN, EDGE, FONT_SIZES, INK, PAGE, QUIET

_MARGIN = 0.06  # inches
_SPACING = 1.3  # of lines, in font sizes
DPI = 300
"""Dots per inch of a PNG, and those at which texts are measured: letters have whole dots."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere, and it has every mark
    "font.size": FONT_SIZES["text"],
    "axes.titlesize": FONT_SIZES["title"],
    "axes.labelsize": FONT_SIZES["text"],
    "axes.titleweight": "bold",
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": FONT_SIZES["small"],
    "ytick.labelsize": FONT_SIZES["small"],
    "xtick.color": EDGE,
    "ytick.color": EDGE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.hinting": "none",  # so that a text is as wide at any resolution
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "legend.fontsize": FONT_SIZES["text"],
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "legend.borderpad": 0.2,
    "legend.labelspacing": 0.3,
    "legend.columnspacing": 1.4,
    "svg.fonttype": "path",  # what is read does not depend on the fonts of who reads it
    "svg.hashsalt": "robustsweep",  # the same figure is the same file
    "pdf.fonttype": 42,
}


def styled() -> AbstractContextManager[None]:
    """A context in which figures are drawn and written; matplotlib's settings are as they were after it."""
    return mpl.rc_context(STYLE)


class Drawing(Figure):
    """A matplotlib figure that shows itself in a notebook, and is written by `save`."""

    def _repr_png_(self) -> bytes:
        return image_bytes(self, "png", dpi=150)


class Notes:
    """What has to be said below a drawing of some width, in inches."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Say something below, once."""
        if text and text not in self._notes:
            self._notes.append(text)

    def note_lines(self) -> tuple[list[str], float]:
        """What is said in lines, and how many inches they take."""
        small = FONT_SIZES["small"]
        lines = [line for note in self._notes for line in wrapped(note, self.width - 2 * _MARGIN, small)]
        return lines, len(lines) * small * _SPACING / 72 + 2 * _MARGIN

    def write_notes(self, drawing: Drawing, lines: Sequence[str], height: float) -> None:
        """At the bottom of a drawing of that height."""
        drawing.text(
            *(_MARGIN / self.width, _MARGIN / height, "\n".join(lines)),
            size=FONT_SIZES["small"],
            color=QUIET,
            va="bottom",
            linespacing=_SPACING,
        )


class Page(Notes):
    """A drawing while it is made: `panel` by panel, then `finished`.

    `count` panels, each at least `panel_width` × `panel_height` inches, as many beside each other as `width`
    (inches) has room for; by default it is that of a column, or of a page where one row of it does not do.
    """

    def __init__(
        self,
        count: int,
        *,
        width: float | None,
        panel_width: float,
        panel_height: float,
        columns: int | None = None,
    ) -> None:
        super().__init__(width or (COLUMN if count * panel_width <= COLUMN + 0.1 else PAGE))
        fitting = max(1, int((self.width + 0.1) / panel_width))
        self.columns = columns if columns and columns <= fitting else min(count, fitting)
        if columns is None:  # no row with one panel below one with many
            self.columns = math.ceil(count / math.ceil(count / self.columns))
        self.rows = math.ceil(count / self.columns)
        self._height = self.rows * panel_height
        self.drawing = Drawing(figsize=(self.width, self._height), dpi=DPI)
        FigureCanvasAgg(self.drawing)
        grid = self.drawing.subplots(self.rows, self.columns, squeeze=False)
        self.panels: list[Axes] = list(grid.flat)[:count]
        for spare in list(grid.flat)[count:]:
            spare.remove()
        self._handles: dict[str, Artist] = {}

    @property
    def panel_width(self) -> float:
        """Inches, its labels included."""
        return self.width / self.columns

    def leftmost(self, panel: Axes) -> bool:
        return self.panels.index(panel) % self.columns == 0

    def legend(self, text: str, handle: Artist) -> None:
        """Explain a series; the first of a text counts."""
        self._handles.setdefault(text, handle)

    def title(self, panel: Axes, text: str, *, beside: float = 0.4) -> None:
        """Above a panel, in as many lines as it takes; `beside` its left edge there are so many inches."""
        size, room = FONT_SIZES["title"], self.panel_width - beside - 0.05
        panel.set_title("\n".join(wrapped(text, room, size, bold=True)), loc="left", pad=4)

    def finished(self) -> Drawing:
        """Legend and notes set, and the height made to hold them."""
        drawing = self.drawing
        lines, notes = self.note_lines()
        legend = self._legend()
        size = legend.get_window_extent().height / drawing.dpi if legend else 0.0
        below = notes + size
        height = self._height + below
        drawing.set_size_inches(self.width, height)
        if legend:
            legend.set_bbox_to_anchor((0.0, notes / height, 1.0, size / height))
        self.write_notes(drawing, lines, height)
        drawing.set_layout_engine(
            "constrained",
            rect=(0, below / height, 1, 1 - below / height),
            w_pad=0.04,
            h_pad=0.04,
            wspace=0.02,
            hspace=0.03,
        )
        # Once and for all: who saves it later does so under another style.
        drawing.draw_without_rendering()
        drawing.set_layout_engine("none")
        return drawing

    def _legend(self) -> Any:
        """With as many columns as there is room for; None where nothing is to be explained."""
        if not self._handles:
            return None
        room = self.width - 0.75
        texts = ["\n".join(wrapped(text, room, FONT_SIZES["text"])) for text in self._handles]
        for columns in range(min(len(texts), 6), 0, -1):
            legend = self.drawing.legend(
                list(self._handles.values()), texts, loc="center", ncols=columns, borderaxespad=0
            )
            fits = legend.get_window_extent().width / self.drawing.dpi <= self.width - 0.05
            # Columns of one entry and of many are worse than one column less.
            even = columns == 1 or len(texts) <= columns or len(texts) % columns != 1
            if columns == 1 or (fits and even):
                return legend
            legend.remove()
        return None


def measured(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a text in inches."""
    return _extent(text, size, bold).width / DPI


@lru_cache(maxsize=2**14)
def _extent(text: str, size: float, bold: bool) -> Bbox:
    properties = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    artist = Text(0, 0, text, fontproperties=properties, parse_math=False)
    artist.set_figure(_easel())  # under `styled`, as the text itself is drawn
    return artist.get_window_extent()


@cache
def _easel() -> Figure:
    """What texts are measured on; making one takes far longer than to measure."""
    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def wrapped(text: str, room: float, size: float, *, bold: bool = False) -> list[str]:
    """The lines of a text in so many inches; a word that is wider alone is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        for part in _cut(word, room, size, bold):
            longer = f"{line} {part}" if line else part
            if line and measured(longer, size, bold=bold) > room:
                lines.append(line)
                line = part
            else:
                line = longer
    return [*lines, line]


def _cut(word: str, room: float, size: float, bold: bool) -> Iterator[str]:
    while word:
        length = len(word)
        while length > 1 and measured(word[:length], size, bold=bold) > room:
            length -= 1
        yield word[:length]
        word = word[length:]


def image_bytes(drawing: Figure, form: str, *, dpi: int = DPI) -> bytes:
    """A drawing as a file of one of `figures.FORMATS`; the same drawing is the same bytes."""
    sink = io.BytesIO()
    made_at = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}[form]
    with styled():
        drawing.savefig(sink, format=form, dpi=dpi, metadata={made_at: None})
    return sink.getvalue()
