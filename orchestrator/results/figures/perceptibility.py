"""Accuracy beside visibility: a stronger attack is also easier to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.axes import epsilon_axis, share_axis
from orchestrator.results.figures.curves import draw_line, handle, runs
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import (
    Panel,
    Point,
    Remarks,
    look_of,
    looks_of,
    name_of,
    panels_by_attack,
    points_of,
    share_text,
)
from orchestrator.results.figures.style import Look
from orchestrator.results.query import connect
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Row, of_one_attack
from orchestrator.results.visible import OF_VISIBLE, Visible, mean_of, visible_in


def perceptibility(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw accuracy, SSIM (Wang et al., 2004) and L2 against epsilon, three panels for each dataset, norm and
    fixed-budget attack; SSIM and L2 of images that spend the whole budget."""
    found, drawn = panels_by_attack(results, choice, _spends_a_budget)
    if not drawn:
        raise UserError(
            "nothing to draw: minimum-norm attacks spend what they need and not epsilon; one with a budget, "
            "such as fgsm, is needed"
        )
    with connect(results, named=OF_VISIBLE) as connection:
        visible = visible_in(connection)
    look = looks_of(drawn)
    page = Page(3 * len(drawn), width=choice.width, panel_width=2.0, panel_height=1.6, columns=3)
    remarks = Remarks()
    counts: set[int] = set()
    for i, panel in enumerate(drawn):
        counts |= _row(page, page.panels[3 * i : 3 * i + 3], panel, found, visible, look, remarks)
    remarks.say(page, bars=True)
    if counts:
        shown = "–".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))
        page.note(
            f"SSIM and L2: means over {shown} of the first 64 images, those that the model gets right, with "
            "the whole budget spent and never stopped early"
        )
    if any(cell["minimum_norm"] for cell in found.cells.values()):
        page.note("without minimum-norm attacks, which spend what they need and not epsilon")
    return page.finished()


def _spends_a_budget(found: Chosen, row: Row) -> bool:
    return of_one_attack(row) and not any(cell["minimum_norm"] for cell in found.cells_of(row))


def _row(
    page: Page,
    axes: Sequence[Axes],
    panel: Panel,
    found: Chosen,
    visible: Visible,
    look: Mapping[tuple[str, str], Look],
    remarks: Remarks,
) -> set[int]:
    """Three panels. Returns of how many images SSIM and L2 are."""
    accuracy, ssim, l2 = axes
    counts: set[int] = set()
    seen = False
    for row in panel.rows:
        style, name = look[look_of(panel.table, row)], name_of(panel.table, row)
        page.legend(name, handle(style))
        points = points_of(panel, row)
        for epsilon, entry in points:
            remarks.see(entry, f"{name}, {panel.title} at {epsilon_text(epsilon)}")
        for run in runs(points):
            draw_line(accuracy, run, style)
        for axis, place in ((ssim, 0), (l2, 1)):
            for stretch in _known(points, row, visible, place):
                seen |= axis is ssim
                x, y = zip(*stretch, strict=True)
                (line,) = axis.plot(x, y, color=style.colour, marker=style.marker, markeredgecolor="white")
                line.set_markeredgewidth(0.3)
                if style.dashes:
                    line.set_dashes(style.dashes)
        counts |= {
            visible[row.sweep, place.of][2]
            for _, entry in points
            for place in entry.places
            if (row.sweep, place.of) in visible
        }
    for axis, text in ((accuracy, ""), (ssim, "SSIM (1: the same)"), (l2, "L2, pixels in [0, 1]")):
        epsilon_axis(axis, panel.table.epsilons, panel.table.norm, page.panel_width, label=True)
        page.title(axis, panel.title if axis is accuracy or page.columns < 3 else "")
        if text:
            axis.set_ylabel(text)
    share_axis(accuracy, share_text(panel), label=True)
    ssim.set_ylim(min(0.8, np.floor(5 * ssim.get_ylim()[0]) / 5), 1.02)
    l2.set_ylim(bottom=0)
    if not seen:
        # Where there is no image either, nothing is known of their size.
        ssim.text(
            *(0.5, 0.5, "no SSIM of images\nbelow 11 pixels" if counts - {0} else "not measured"),
            ha="center",
            va="center",
            transform=ssim.transAxes,
        )
    return counts - {0}


def _known(
    points: Sequence[Point], row: Row, visible: Visible, place: int
) -> list[list[tuple[float, float]]]:
    """Stretches of epsilons at which there is a mean, over all training seeds."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for epsilon, entry in points:
        mean = mean_of(visible, row.sweep, entry, place)
        if mean is None:
            stretches.append([])
        else:
            stretches[-1].append((epsilon, mean))
    return [stretch for stretch in stretches if stretch]
