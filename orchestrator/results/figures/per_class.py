"""Clean and robust accuracy of each class: an average hides the class that always breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.errors import UserError
from orchestrator.results.chosen import chosen, epsilon_of, no_epsilon
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.curves import handle
from orchestrator.results.figures.page import Drawing, Page, wrapped
from orchestrator.results.figures.series import Panel, Remarks, look_of, name_of, panels, share_text
from orchestrator.results.figures.style import FONT_SIZES, INK, QUIET, Look, looks
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.per_class import ByClass, Shares
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, Row
from orchestrator.results.text.robustness import ABOUT_WORST_CASE

_MOST = 20  # classes of a panel
_LINE, _GAP = 0.095, 0.07  # inches of a series of a class, and between two classes
_NAMES = 0.9  # inches for the name of a class, at the most


class _Drawn(NamedTuple):
    """A panel, and the classes that it has room for."""

    panel: Panel
    title: str
    rows: list[tuple[Row, Entry, Shares | None]]
    classes: list[int]

    @property
    def height(self) -> float:
        """Inches."""
        return len(self.classes) * (len(self.rows) * _LINE + _GAP) + 0.55


def per_class(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw the accuracy of each class under attack at one epsilon, with its 95% interval, and a stroke where
    the clean one is: a panel for each dataset and norm. Of many classes the least robust and the most are
    shown."""
    notes: list[str] = []
    found = chosen(results, choice.wanted, choice.by)
    by_class = ByClass(results, found.cells)
    at = [
        _drawn(panel, epsilon, by_class)
        for panel in panels(found.tables, choice, notes)
        if (epsilon := epsilon_of(panel.table, choice.epsilon)) is not None
    ]
    if not at:
        raise no_epsilon(found.tables, choice.epsilon or 0.0)
    if not (drawn := [one for one in at if one.rows]):
        raise UserError(f"nothing to draw: {WITH_TRANSFER} has no examples that could be told apart by class")
    series = [look_of(one.panel.table, row) for one in drawn for row, *_ in one.rows]
    look = looks(list(dict.fromkeys(series)))
    page = Page(
        len(drawn), width=choice.width, panel_width=2.2, panel_height=max(one.height for one in drawn)
    )
    remarks = Remarks()
    for one, axes in zip(drawn, page.panels, strict=True):
        _panel(page, axes, one, look, remarks)
        if len(one.classes) < (every := _classes(one.rows)):
            page.note(f"{one.title}: {len(one.classes)} of {every} classes, the least robust and the most")
    page.legend("clean", Line2D([], [], color=INK, marker="|", linestyle="none", markersize=5))
    remarks.say(page, bands="lines")
    counts = {int(n) for one in drawn for *_, shares in one.rows if shares for n in shares.n if n}
    if counts:
        shown = "–".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))
        page.note(f"{shown} test images of a class")
    if any(row.attack == WORST_CASE for one in drawn for row, *_ in one.rows):
        page.note(ABOUT_WORST_CASE)
    for note in notes:
        page.note(note)
    return page.finished()


def _drawn(panel: Panel, epsilon: float, by_class: ByClass) -> _Drawn:
    place = panel.table.epsilons.index(epsilon)
    rows = [
        (row, entry, by_class.shares(row, entry))
        for row in panel.rows
        if row.attack != WITH_TRANSFER  # whose examples nobody keeps apart
        and (entry := row.entries[place]) is not None
    ]
    return _Drawn(panel, f"{panel.title}, epsilon {epsilon_text(epsilon)}", rows, _shown(rows))


def _classes(rows: Sequence[tuple[Row, Entry, Shares | None]]) -> int:
    return max((len(shares.n) for *_, shares in rows if shares), default=0)


def _shown(rows: Sequence[tuple[Row, Entry, Shares | None]]) -> list[int]:
    """All classes, or where they are many half of them the least robust and half the most."""
    count = _classes(rows)
    if count <= _MOST:
        return list(range(count))
    means = np.nanmean([shares.robust for *_, shares in rows if shares], axis=0)
    order = [int(one) for one in np.argsort(means, kind="stable") if not np.isnan(means[one])]
    return [*order[: _MOST // 2], *order[-_MOST // 2 :]]


def _panel(
    page: Page, axes: Axes, one: _Drawn, look: Mapping[tuple[str, str], Look], remarks: Remarks
) -> None:
    table = one.panel.table
    step = len(one.rows) * _LINE + _GAP
    names: tuple[str, ...] = ()
    for i, (row, entry, shares) in enumerate(one.rows):
        style, name = look[look_of(table, row)], name_of(table, row)
        page.legend(name, handle(style))
        remarks.see(entry, f"{name}, {one.title}")
        if shares is None:
            continue
        names = names or shares.names
        y = np.arange(len(one.classes)) * step + i * _LINE
        clean, robust, low, high = (100 * of[one.classes] for of in shares[2:])
        hollow = entry.verdict == "suspicious"
        lines = axes.hlines(y, low, high, color=style.colour, linewidth=0.9)
        if style.dashes:
            lines.set_linestyle((0, style.dashes))
        axes.plot(clean, y, marker="|", linestyle="none", color=style.colour, markersize=4.5)
        axes.plot(
            robust,
            y,
            linestyle="none",
            marker=style.marker,
            color=style.colour,
            markerfacecolor="white" if hollow else style.colour,
            markeredgecolor=style.colour if hollow else "white",
            markeredgewidth=0.8 if hollow else 0.3,
        )
    middle = (len(one.rows) - 1) * _LINE / 2
    ticks = np.arange(len(one.classes)) * step + middle
    texts = [wrapped(names[label], _NAMES, FONT_SIZES["small"])[0] for label in one.classes] if names else []
    axes.set_yticks(ticks if texts else [], texts)
    axes.set_ylim(len(one.classes) * step - _GAP, -_GAP - _LINE / 2)
    axes.set_xlim(-2, 102)
    axes.set_xlabel(share_text(one.panel))
    axes.grid(axis="y", visible=False)
    for edge in ticks[:-1] + step / 2:
        axes.axhline(edge, color="#e6e6e6", linewidth=0.5)
    if not texts:
        axes.text(0.5, 0.5, "no number", color=QUIET, ha="center", va="center", transform=axes.transAxes)
    page.title(axes, one.title)
