"""Numbers in rows and columns, each on its colour: what heatmaps are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from orchestrator.results.figures.page import measured, wrapped
from orchestrator.results.figures.style import FONT_SIZES, INK, QUIET, SEQUENTIAL, contrast

SUSPICIOUS = "*"
"""What stands behind a number that a check calls suspicious."""

_CELL = 0.46, 0.2  # inches: width and height
_NAMES = 1.25  # inches for a name, at the most
_SMALL = FONT_SIZES["small"]


class Grid:
    """Rows and columns by their names, and the room that they need, in inches."""

    def __init__(self, rows: Sequence[str], columns: Sequence[str]) -> None:
        self.rows, self.columns = list(rows), list(columns)
        self._rows, self._columns = (
            ["\n".join(wrapped(name, _NAMES, _SMALL)) for name in names] for names in (rows, columns)
        )
        lines = max(text.count("\n") + 1 for text in self._rows)
        # Inches of names, at the left of its first column.
        self.beside, self._below = (
            max(measured(line, _SMALL) for text in texts for line in text.split("\n"))
            for texts in (self._rows, self._columns)
        )
        self._cell = _CELL[0], max(_CELL[1], lines * _SMALL * 1.25 / 72)

    @property
    def _upright(self) -> bool:
        """Whether the names of columns stand beside each other."""
        return self._below <= self._cell[0] - 0.04

    @property
    def width(self) -> float:
        return self.beside + 0.2 + self._cell[0] * len(self.columns)

    @property
    def height(self) -> float:
        return self._cell[1] * len(self.rows) + 0.35 + (0.1 if self._upright else self._below)

    def frame(self, axes: Axes) -> None:
        """Names beside and below, and nothing else."""
        axes.set_xlim(0, len(self.columns))
        axes.set_ylim(len(self.rows), 0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=2)
        turned: dict[str, Any] = {} if self._upright else {"rotation": 90, "ma": "right"}
        axes.set_xticks(np.arange(len(self.columns)) + 0.5, self._columns, linespacing=1.1, **turned)
        axes.set_yticks(np.arange(len(self.rows)) + 0.5, self._rows, linespacing=1.1)

    def cell(
        self,
        axes: Axes,
        row: str,
        column: str,
        value: float | None,
        *,
        mark: str = "",
        suspicious: bool = False,
        aside: str = "",
        bold: bool = False,
    ) -> None:
        """A share in [0, 1] in percent, on its colour; where there is none, its `mark` says why."""
        x, y = self.columns.index(column), self.rows.index(row)
        if value is None:
            text = {"incomplete": "part", "partial": "part"}.get(mark.partition(" ")[0], mark or "–")
            face, ink = "#f2f2f2", QUIET
        else:
            text = f"{100 * value:.0f}{SUSPICIOUS if suspicious else ''}{aside}"
            face = mpl.colors.to_hex(mpl.colormaps[SEQUENTIAL](value))
            ink = max("white", INK, key=lambda ink: contrast(ink, face))
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor="white", linewidth=0.8))
        if value is None:
            hatched = Rectangle((x, y), 1, 1, fill=False, hatch="////", edgecolor="#d9d9d9", linewidth=0)
            axes.add_patch(hatched)
        weight = "bold" if bold else "normal"
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", size=_SMALL, color=ink, weight=weight)
