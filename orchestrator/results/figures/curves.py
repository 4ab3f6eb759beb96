"""Robust accuracy against epsilon: a panel for each dataset and norm, a line for each model and defence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from orchestrator.results.chosen import Chosen, chosen
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.axes import epsilon_axis, share_axis
from orchestrator.results.figures.certified import certified
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import (
    Panel,
    Point,
    Remarks,
    look_of,
    looks_of,
    name_of,
    panels,
    points_of,
    share_text,
)
from orchestrator.results.figures.style import INK, Look
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.schemas import Results
from orchestrator.results.steps import Steps, distances_of, nearest_of, steps
from orchestrator.results.tables import of_one_attack
from orchestrator.results.text.robustness import ABOUT_WITH_TRANSFER, ABOUT_WORST_CASE

_STEP = 0.075  # of the height: between marks of what has no number


def curves(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw robust accuracy against epsilon, with 95% intervals as bands.

    Of the worst case where there is one, unless attacks are asked for: then a panel for each. A line has a
    gap where a number is missing or a check calls it wrong, and a mark. That of a minimum-norm attack is its
    step function: distances say what is left between epsilons. In L2, what is certified of smoothed victims
    is a line of its own below them.
    """
    notes: list[str] = []
    found = chosen(results, choice.wanted, choice.by)
    drawn, bounds = panels(found.tables, choice, notes), certified(results)
    look = looks_of(drawn)
    page = Page(len(drawn), width=choice.width, panel_width=2.2, panel_height=1.75)
    remarks = Remarks()
    stepped = _stepped(results, found, drawn)
    for panel, axes in zip(drawn, page.panels, strict=True):
        _panel(page, axes, panel, look, remarks, stepped)
        for row in panel.rows:
            bounds.draw(page, axes, panel, row, found, look[look_of(panel.table, row)])
    _explain(page, drawn)
    remarks.say(page, bars=True)
    if stepped:
        page.note("steps: what a minimum-norm attack leaves at any epsilon, by its distances")
    bounds.say(page)
    for note in [*notes, *_worst_case(drawn)]:
        page.note(note)
    return page.finished()


def _stepped(results: Sequence[Results], found: Chosen, drawn: Sequence[Panel]) -> dict[int, Steps]:
    """By the identity of a row the step function of its minimum-norm attack, where no number of it is wrong
    and all of its examples were looked at."""
    known = None
    made: dict[int, Steps] = {}
    for row in (row for panel in drawn for row in panel.rows if of_one_attack(row) and not row.targeted):
        cells = found.cells_of(row)
        marks = {entry.mark for entry in row.entries if entry is not None}
        if all(cell["minimum_norm"] for cell in cells) and "" in marks and "wrong" not in marks:
            known = distances_of(results) if known is None else known
            if some := nearest_of(cells, known):
                made[id(row)] = steps(some)
    return made


def _panel(
    page: Page,
    axes: Axes,
    panel: Panel,
    look: dict[tuple[str, str], Look],
    remarks: Remarks,
    stepped: Mapping[int, Steps],
) -> None:
    marked: dict[float, int] = defaultdict(int)
    for row in panel.rows:
        style, name = look[look_of(panel.table, row)], name_of(panel.table, row)
        points = points_of(panel, row)
        for epsilon, entry in points:
            remarks.see(entry, f"{name}, {panel.title} at {epsilon_text(epsilon)}")
            if entry.mark:
                height = -_STEP * (marked[epsilon] + 0.6)
                marked[epsilon] += 1
                axes.plot(epsilon, 100 * height, clip_on=False, **mark(entry.mark, style.colour))
        if id(row) in stepped:
            draw_steps(axes, stepped[id(row)], style)
        for run in runs(points):
            draw_line(axes, run, style, joined=id(row) not in stepped)
        page.legend(name, handle(style))
    epsilon_axis(axes, panel.table.epsilons, panel.table.norm, page.panel_width, label=True)
    below = _STEP * max(marked.values(), default=0)
    share_axis(axes, share_text(panel), label=page.leftmost(axes), floor=-below)
    page.title(axes, panel.title)


def runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The stretches of a line without a hole: nothing is drawn across one."""
    run: list[Point] = []
    for epsilon, entry in points:
        if entry.value is None:
            if run:
                yield run
            run = []
        else:
            run.append((epsilon, entry))
    if run:
        yield run


def draw_steps(axes: Axes, found: Steps, style: Look) -> None:
    """A step function with its band, on to the right of every axis: what no distance reaches stays."""
    at = np.append(found.at, max(1e6, 2 * found.at[-1]))
    share, low, high = (100 * np.append(one, one[-1]) for one in (found.share, found.low, found.high))
    axes.fill_between(at, low, high, step="post", color=style.colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(at, share, color=style.colour, drawstyle="steps-post")
    if style.dashes:
        line.set_dashes(style.dashes)


def draw_line(axes: Axes, run: Sequence[Point], style: Look, *, joined: bool = True) -> None:
    """A stretch of a curve, with its band; hollow where a check calls a number suspicious. Without `joined`
    its points alone, for what is drawn between them otherwise."""
    x = [epsilon for epsilon, _ in run]
    value, low, high = (
        100 * np.array([getattr(entry, name) for _, entry in run], np.float64)
        for name in ("value", "low", "high")
    )
    if not joined:
        pass
    elif len(run) > 1:
        axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
    else:  # a band of one point has no width
        axes.errorbar(x, value, [value - low, high - value], color=style.colour, linewidth=0.8, capsize=1.5)
    if joined:
        axes.plot(x, value, color=style.colour, dashes=style.dashes or (None, None))
    if any(entry.sd is not None for _, entry in run):
        spread = 100 * np.array([entry.sd or 0.0 for _, entry in run])
        axes.errorbar(x, value, spread, fmt="none", color=style.colour, linewidth=0.8, capsize=1.5)
    for (epsilon, entry), y in zip(run, value, strict=True):
        hollow = entry.verdict == "suspicious"
        axes.plot(
            epsilon,
            y,
            marker=style.marker,
            color=style.colour,
            markerfacecolor="white" if hollow else style.colour,
            markeredgewidth=0.8 if hollow else 0.3,
            markeredgecolor=style.colour if hollow else "white",
        )


def handle(style: Look) -> Line2D:
    """How a series is shown in a legend."""
    line = Line2D(
        [], [], color=style.colour, marker=style.marker, markeredgecolor="white", markeredgewidth=0.3
    )
    if style.dashes:
        line.set_dashes(style.dashes)
    return line


def mark(why: str, colour: str) -> dict[str, Any]:
    """How it is shown that there is no number: by a cross where it is wrong, else by a question mark."""
    look: dict[str, Any] = {"color": colour, "linestyle": "none"}
    if why == "wrong":
        return {**look, "marker": "x", "markersize": 3.5, "markeredgewidth": 0.9}
    # As a path: where `$` in names means nothing, "$?$" is no question mark either. An edge would fill it.
    path = TextPath((0, 0), "?")
    low, high = path.get_extents().get_points()
    centred = Path(path.vertices - (low + high) / 2, path.codes)
    return {**look, "marker": centred, "markersize": 5.0, "markeredgewidth": 0.0}


def _explain(page: Page, drawn: Sequence[Panel]) -> None:
    entries = [entry for panel in drawn for row in panel.rows for entry in row.entries if entry]
    if any(entry.mark == "wrong" for entry in entries):
        page.legend("wrong: no number", Line2D([], [], **mark("wrong", INK)))
    if any(entry.mark not in ("", "wrong") for entry in entries):
        page.legend("not done", Line2D([], [], **mark("missing", INK)))


def _worst_case(drawn: Sequence[Panel]) -> Iterator[str]:
    """What worst cases are of, where that is not the same for all of them."""
    of = [panel for panel in drawn if panel.attack == WORST_CASE]
    if of:
        yield ABOUT_WORST_CASE
    if any(panel.attack == WITH_TRANSFER for panel in drawn):
        yield ABOUT_WITH_TRANSFER
    for panel in of:
        at: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for row in panel.rows:
            for epsilon, entry in zip(panel.table.epsilons, row.entries, strict=True):
                if entry and not entry.mark:
                    at[entry.attacks].append(f"{name_of(panel.table, row)} at {epsilon_text(epsilon)}")
        most = max(at, key=lambda attacks: len(at[attacks]), default=())
        for attacks, where in at.items():
            if attacks != most:
                shown = ", ".join(dict.fromkeys(where))
                place = f"{panel.table.dataset_label}, {panel.table.norm}"
                yield f"{place}: {' and '.join(attacks)} alone for {shown}"
