"""A figure that is filled from top to bottom: images and texts in inches, below them what has to be said."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from orchestrator.results.figures.page import DPI, Drawing, Notes
from orchestrator.results.figures.style import EDGE


class Sheet(Notes):
    """A drawing while it is made: `down` after what stands beside each other, then `finished`."""

    def __init__(self, width: float) -> None:
        super().__init__(width)
        self.y = 0.0  # inches from the top
        self.drawing = Drawing(figsize=(width, 1.0), dpi=DPI)
        FigureCanvasAgg(self.drawing)
        # One pair of axes for all, in inches: dozens of them would take seconds.
        self._axes = self.drawing.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()

    def down(self, inches: float) -> None:
        """Go on so much further below."""
        self.y += inches

    def text(self, x: float, text: str, *, below: float = 0.0, **how: Any) -> None:
        """A text whose upper edge is here, or so much below."""
        self._axes.text(x, self.y + below, text, va="top", linespacing=1.25, **how)

    def image(self, x: float, width: float, pixels: NDArray[np.float32]) -> None:
        """An image (H, W, C) in [0, 1], C 1, 3 or 4, whose upper left corner is here, so many inches wide."""
        height = width * pixels.shape[0] / pixels.shape[1]
        shown = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        extent = (x, x + width, self.y + height, self.y)
        self._axes.imshow(
            shown, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest", aspect="auto"
        )
        # White images have edges too.
        self._axes.plot(
            [x, x + width, x + width, x, x],
            [self.y, self.y, self.y + height, self.y + height, self.y],
            color=EDGE,
            linewidth=0.4,
        )

    def finished(self) -> Drawing:
        """Notes set, and the height made to hold everything."""
        lines, below = self.note_lines()
        height = self.y + below
        self.drawing.set_size_inches(self.width, height)
        self._axes.set_xlim(0, self.width)
        self._axes.set_ylim(height, 0)
        self.write_notes(self.drawing, lines, height)
        return self.drawing
