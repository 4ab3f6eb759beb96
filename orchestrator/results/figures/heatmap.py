"""Every model under every attack at one epsilon, in numbers and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from orchestrator.results.chosen import chosen, epsilon_of, no_epsilon
from orchestrator.results.figures import Choice
from orchestrator.results.figures.page import Drawing, Page, measured, wrapped
from orchestrator.results.figures.series import Remarks, name_of
from orchestrator.results.figures.style import FONT_SIZES, INK, QUIET, SEQUENTIAL, contrast
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text.robustness import epsilon_text

_CELL = 0.46, 0.2  # inches: width and height
_NAMES = 1.25  # inches for a name, at the most
_ASIDE = "*"


def heatmap(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw robust accuracy, a row for each model and defence, a column for each attack, a panel for each
    dataset and norm, at one epsilon. What has no number says why."""
    tables = chosen(results, choice.wanted, choice.by).tables
    at = [(table, epsilon) for table in tables if (epsilon := epsilon_of(table, choice.epsilon)) is not None]
    if not at:
        raise no_epsilon(tables, choice.epsilon or 0.0)
    grids = [_Grid(table, table.epsilons.index(epsilon)) for table, epsilon in at]
    page = Page(
        len(grids),
        width=choice.width,
        panel_width=max(grid.width for grid in grids),
        panel_height=max(grid.height for grid in grids),
    )
    remarks = Remarks()
    for grid, axes in zip(grids, page.panels, strict=True):
        grid.draw(page, axes, remarks)
    page.note("robust accuracy in percent; epsilon on the [0, 1] scale; dark: little, light: much")
    if any(row.targeted for grid in grids for row in grid.table.rows):
        page.note("targeted: share right and not driven to the target, which is no robust accuracy")
    remarks.say(page, bands=None, suspicious=_ASIDE)
    return page.finished()


class _Grid:
    """The panel of one table."""

    def __init__(self, table: RobustnessTable, place: int) -> None:
        self.table, self.place = table, place
        self.names = list(dict.fromkeys(name_of(table, row) for row in table.rows))
        self.attacks = list(dict.fromkeys(row.attack_label for row in table.rows))
        small = FONT_SIZES["small"]
        self._rows = ["\n".join(wrapped(name, _NAMES, small)) for name in self.names]
        lines = max(text.count("\n") + 1 for text in self._rows)
        self._names = max(measured(line, small) for text in self._rows for line in text.split("\n"))
        self._columns = ["\n".join(wrapped(name, _NAMES, small)) for name in self.attacks]
        self._above = max(measured(line, small) for text in self._columns for line in text.split("\n"))
        self._cell = _CELL[0], max(_CELL[1], lines * small * 1.25 / 72)

    @property
    def upright(self) -> bool:
        """Whether the names of attacks stand beside each other."""
        return self._above <= self._cell[0] - 0.04

    @property
    def width(self) -> float:
        aside = 0.0 if self.upright else 0.3
        return self._names + 0.2 + self._cell[0] * len(self.attacks) + aside

    @property
    def height(self) -> float:
        return self._cell[1] * len(self.names) + 0.35 + (0.1 if self.upright else 0.75 * self._above)

    def draw(self, page: Page, axes: Axes, remarks: Remarks) -> None:
        epsilon = self.table.epsilons[self.place]
        title = f"{self.table.dataset_label}, {self.table.norm}, epsilon {epsilon_text(epsilon)}"
        page.title(axes, ", ".join([title, *(value for _, value in self.table.by)]))
        axes.set_xlim(0, len(self.attacks))
        axes.set_ylim(len(self.names), 0)
        for row in self.table.rows:
            if (entry := row.entries[self.place]) is None:
                continue
            x, y = self.attacks.index(row.attack_label), self.names.index(name_of(self.table, row))
            remarks.see(entry, f"{name_of(self.table, row)} under {row.attack_label}, {title}")
            _cell(axes, x, y, entry, row)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, pad=2)
        slanted: dict[str, Any] = (
            {} if self.upright else {"rotation": 40, "ha": "right", "ma": "right", "rotation_mode": "anchor"}
        )
        axes.set_xticks(np.arange(len(self.attacks)) + 0.5, self._columns, **slanted)
        axes.set_yticks(np.arange(len(self.names)) + 0.5, self._rows, linespacing=1.1)


def _cell(axes: Axes, x: int, y: int, entry: Entry, row: Row) -> None:
    """A number on its colour; where there is none, why."""
    colours = mpl.colormaps[SEQUENTIAL]
    if entry.value is None:
        text, ink, face, hatch = entry.mark or "–", QUIET, "#f2f2f2", "////"
    else:
        text, hatch = f"{100 * entry.value:.0f}", ""
        text += _ASIDE if entry.verdict == "suspicious" else ""
        face = mpl.colors.to_hex(colours(entry.value))
        ink = max("white", INK, key=lambda ink: contrast(ink, face))
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor="white", linewidth=0.8))
    if hatch:
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, hatch=hatch, edgecolor="#d9d9d9", linewidth=0))
    short = {"incomplete": "part", "partial": "part"}.get(text.partition(" ")[0], text)
    axes.text(x + 0.5, y + 0.5, short, ha="center", va="center", size=FONT_SIZES["small"], color=ink)
