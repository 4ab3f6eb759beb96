"""What is certified of smoothed victims, drawn below what attacks have left of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.results.chosen import Chosen
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures.page import Page
from orchestrator.results.figures.series import Panel, name_of
from orchestrator.results.figures.style import Look
from orchestrator.results.judged import certified_table
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Row
from orchestrator.results.text.certified import reach

_DOTTED = (1.0, 1.6)
_HELD = "certified: at least so much is right on every image within L2 epsilon, by randomised smoothing "
_HELD += "(Cohen et al., 2019)"


@dataclass
class Certified:
    """Certified accuracy by victim and epsilon, from below; robust accuracy under attack is from above."""

    known: Mapping[tuple[str, str], Mapping[float, Mapping[str, Any]]]
    _holes: dict[str, list[str]] = field(default_factory=dict)  # why -> where
    _drawn: list[Mapping[str, Any]] = field(default_factory=list)  # rows of the view `certified_accuracy`

    def draw(self, page: Page, axes: Axes, panel: Panel, row: Row, found: Chosen, style: Look) -> None:
        """The bound of a row's victims at the epsilons of its table, as a line of its own; a stretch ends
        where one of them has none."""
        if panel.table.norm != "l2" or panel.targeted:
            return
        ids = dict.fromkeys((row.sweep, cell["victim_id"]) for cell in found.cells_of(row))
        if not ids or not all(id in self.known for id in ids):
            return
        name = name_of(panel.table, row)
        x: list[float] = []
        y: list[float] = []
        for epsilon in panel.table.epsilons:
            rows = [self.known[id].get(epsilon) for id in ids]
            there = [one for one in rows if one is not None]
            marks = [_mark(one) for one in there]
            if len(there) < len(rows) or any(marks):
                for mark in filter(None, marks):
                    where = f"{name}, {panel.title} at {epsilon_text(epsilon)}"
                    self._holes.setdefault(mark, []).append(where)
                x, y = self._stretch(axes, x, y, style)
                continue
            x.append(epsilon)
            y.append(100 * fmean(one["certified_accuracy"] for one in there))
            self._drawn += there
        self._stretch(axes, x, y, style)
        page.legend(f"{name}: certified, a lower bound", _line([], [], style))

    @staticmethod
    def _stretch(axes: Axes, x: list[float], y: list[float], style: Look) -> tuple[list[float], list[float]]:
        if x:
            axes.add_line(_line(x, y, style))
        return [], []

    def say(self, page: Page) -> None:
        """What the bounds are, below the figure."""
        taken = {(row["n"], row["draws"], row["alpha"]) for row in self._drawn}
        for n, draws, alpha in sorted(taken):
            page.note(
                f"{_HELD}, {n} test images, {draws:,} draws, each certificate wrong with a probability of at "
                f"most {alpha:g}; robust accuracy under attack is an upper bound"
            )
        for text in reach(self._drawn) if self._drawn else ():
            page.note(f"certified {text}")
        for mark, places in self._holes.items():
            page.note(f"certified, {mark}, no number: {'; '.join(dict.fromkeys(places))}")


def certified(results: Sequence[Results]) -> Certified:
    """What there is of some sweeps."""
    known: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    if any(one.certificates.num_rows for one in results):
        for row in certified_table(results).to_pylist():
            known.setdefault((row["sweep"], row["victim_id"]), {})[row["epsilon"]] = row
    return Certified(known)


def _mark(row: Mapping[str, Any]) -> str:
    """Why there is no number; an empty text where there is one."""
    if row["status"] != "done":
        return str(row["status"])
    return "wrong" if row["verdict"] == "wrong" or row["certified_accuracy"] is None else ""


def _line(x: list[float], y: list[float], style: Look) -> Line2D:
    line = Line2D(
        *(x, y),
        color=style.colour,
        marker="v",
        markersize=3.2,
        markerfacecolor="white",
        markeredgewidth=0.7,
        markeredgecolor=style.colour,
        linewidth=1.0,
    )
    line.set_dashes(_DOTTED)
    return line
