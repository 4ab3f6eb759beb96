"""Robust accuracy at any epsilon, whichever the grid has: what minimum-norm attacks leave, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen
from orchestrator.results.figures import Choice
from orchestrator.results.figures.axes import epsilon_label, share_axis
from orchestrator.results.figures.curves import draw_steps, handle
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import (
    Panel,
    Remarks,
    look_of,
    looks_of,
    name_of,
    panels_by_attack,
    share_text,
)
from orchestrator.results.figures.style import Look
from orchestrator.results.schemas import Results
from orchestrator.results.steps import Distances, Steps, distances_of, nearest_of, steps
from orchestrator.results.tables import Row, of_one_attack

_EDGE = 0.98  # the share of the distances that an axis shows; a few may be very far


def distances(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw robust accuracy as the step function of epsilon that the nearest adversarial images make it.

    A panel for each dataset, norm and minimum-norm attack. A row of which a check calls any number wrong, or
    that is not done at any epsilon, is not drawn but named.
    """
    found, drawn = panels_by_attack(results, choice, _minimum_norm)
    if not drawn:
        there = dict.fromkeys(row.attack_label for table in found.tables for row in table.rows)
        raise UserError(
            "nothing to draw: distances are of minimum-norm attacks, such as deepfool; there are: "
            f"{', '.join(there)}"
        )
    known = distances_of(results)
    look = looks_of(drawn)
    page = Page(len(drawn), width=choice.width, panel_width=2.2, panel_height=1.75)
    remarks = Remarks()
    for panel, axes in zip(drawn, page.panels, strict=True):
        _panel(page, axes, panel, found, known, look, remarks)
    remarks.say(page, bars=True)
    return page.finished()


def _minimum_norm(found: Chosen, row: Row) -> bool:
    return of_one_attack(row) and any(cell["minimum_norm"] for cell in found.cells_of(row))


def _panel(
    page: Page,
    axes: Axes,
    panel: Panel,
    found: Chosen,
    known: Distances,
    look: dict[tuple[str, str], Look],
    remarks: Remarks,
) -> None:
    reached: list[float] = []
    for row in panel.rows:
        name, style = name_of(panel.table, row), look[look_of(panel.table, row)]
        entries = [entry for entry in row.entries if entry is not None]
        wrong = [entry for entry in entries if entry.mark == "wrong"]
        done = [entry for entry in entries if not entry.mark]
        page.legend(name, handle(style))
        # One that is done at any epsilon has looked for the nearest image of every example.
        for entry in wrong or done or entries[:1]:
            remarks.see(entry, f"{name}, {panel.title}")
        if wrong or not done:
            continue
        if not (some := nearest_of(found.cells_of(row), known)):
            continue
        _draw(axes, steps(some), style, hollow=any(one.verdict == "suspicious" for one in entries))
        reached += [distance for one in some for distance in one[np.isfinite(one)]]
    edge = float(np.quantile(reached, _EDGE)) if reached else 0.0
    edge = edge or max(panel.table.epsilons)
    axes.set_xlim(-0.02 * edge, 1.02 * edge)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(epsilon_label(panel.table.norm))
    share_axis(axes, share_text(panel), label=page.leftmost(axes))
    page.title(axes, panel.title)


def _draw(axes: Axes, found: Steps, style: Look, *, hollow: bool) -> None:
    draw_steps(axes, found, style)
    at, share = found.at, 100 * found.share
    # Where the curve passes 90%, 80%, … of where it begins.
    levels = [share[0] * level / 10 for level in range(9, 0, -1)]
    falls = [int(np.argmax(share <= level)) for level in levels if share[-1] <= level]
    axes.plot(
        at[falls],
        share[falls],
        linestyle="none",
        marker=style.marker,
        color=style.colour,
        markerfacecolor="white" if hollow else style.colour,
        markeredgecolor=style.colour if hollow else "white",
        markeredgewidth=0.8 if hollow else 0.3,
    )
    if found.sd is not None:  # of each step a bar would be a second band
        spread = 100 * found.sd
        where = [0, *falls]
        axes.errorbar(
            *(at[where], share[where], spread[where]),
            fmt="none",
            color=style.colour,
            linewidth=0.8,
            capsize=1.5,
        )
