"""Robust accuracy at any epsilon, whichever the grid has: what minimum-norm attacks leave, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen
from orchestrator.results.figures import Choice
from orchestrator.results.figures.axes import epsilon_label, share_axis
from orchestrator.results.figures.curves import handle
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import (
    Panel,
    Remarks,
    look_of,
    looks_of,
    name_of,
    of_one_attack,
    panels_by_attack,
    share_text,
)
from orchestrator.results.figures.style import Look
from orchestrator.results.query import connect
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Row
from orchestrator.results.wilson import wilson

_EDGE = 0.98  # the share of the distances that an axis shows; a few may be very far

_Nearest = Mapping[tuple[str, str, str], NDArray[np.float64]]
"""Sweep, victim id and attack id -> by example: the distance of its nearest adversarial image; infinite where
none was found, 0 where the victim is wrong without any."""


class Steps(NamedTuple):
    """A share that falls at each of some distances, (S,): `share[i]` from `at[i]` on, with its interval."""

    at: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sd: NDArray[np.float64] | None = None  # sample standard deviation over victims, where they are several


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
    nearest = _nearest(results)
    look = looks_of(drawn)
    page = Page(len(drawn), width=choice.width, panel_width=2.2, panel_height=1.75)
    remarks = Remarks()
    for panel, axes in zip(drawn, page.panels, strict=True):
        _panel(page, axes, panel, found, nearest, look, remarks)
    remarks.say(page, bars=True)
    return page.finished()


def _minimum_norm(found: Chosen, row: Row) -> bool:
    return of_one_attack(row) and any(cell["minimum_norm"] for cell in found.cells_of(row))


def _panel(
    page: Page,
    axes: Axes,
    panel: Panel,
    found: Chosen,
    nearest: _Nearest,
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
        cells = found.cells_of(row)
        # Each victim once, however many epsilons it is attacked at: its distances are the same at all.
        victims = dict.fromkeys((row.sweep, cell["victim_id"], cell["attack_id"]) for cell in cells)
        some = [nearest[key] for key in victims]
        _draw(axes, steps(some), style, hollow=any(one.verdict == "suspicious" for one in entries))
        reached += [distance for one in some for distance in one[np.isfinite(one)]]
    edge = float(np.quantile(reached, _EDGE)) if reached else 0.0
    edge = edge or max(panel.table.epsilons)
    axes.set_xlim(-0.02 * edge, 1.02 * edge)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(epsilon_label(panel.table.norm))
    share_axis(axes, share_text(panel), label=page.leftmost(axes))
    page.title(axes, panel.title)


def steps(nearest: Sequence[NDArray[np.float64]]) -> Steps:
    """The share of examples whose nearest adversarial image is farther than x, for every x from 0 on; its
    mean over victims, of each of which there are distances (N,)."""
    at = np.unique(np.concatenate([[0.0], *(one[np.isfinite(one)] for one in nearest)]))
    parts = []
    for one in nearest:
        left = len(one) - np.searchsorted(np.sort(one), at, side="right")
        low, high = wilson(left, len(one))
        parts.append(np.stack([left / len(one), low, high]))
    share, low, high = np.mean(parts, axis=0)
    sd = np.std([part[0] for part in parts], axis=0, ddof=1) if len(parts) > 1 else None
    return Steps(at, share, low, high, sd)


def _draw(axes: Axes, found: Steps, style: Look, *, hollow: bool) -> None:
    # To the right of every axis: what no distance reaches stays.
    at = np.append(found.at, max(1e6, 2 * found.at[-1]))
    share, low, high = (100 * np.append(one, one[-1]) for one in (found.share, found.low, found.high))
    axes.fill_between(at, low, high, step="post", color=style.colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(at, share, color=style.colour, drawstyle="steps-post")
    if style.dashes:
        line.set_dashes(style.dashes)
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
        spread = 100 * np.append(found.sd, found.sd[-1])
        where = [0, *falls]
        axes.errorbar(
            *(at[where], share[where], spread[where]),
            fmt="none",
            color=style.colour,
            linewidth=0.8,
            capsize=1.5,
        )


def _nearest(results: Sequence[Results]) -> dict[tuple[str, str, str], NDArray[np.float64]]:
    sql = "SELECT sweep, victim_id, attack_id, clean_correct, nearest FROM distances ORDER BY ALL"
    with connect(results) as connection:
        rows = connection.sql(sql).to_arrow_table()
    distance = np.where(
        rows["clean_correct"].to_numpy(), rows["nearest"].fill_null(np.inf).to_numpy(), 0.0
    ).astype(np.float64)
    found: dict[tuple[str, str, str], list[int]] = {}
    keys = zip(*(rows[name].to_pylist() for name in ("sweep", "victim_id", "attack_id")), strict=True)
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return {key: distance[places] for key, places in found.items()}
