"""Images made against one model, tried on another: who breaks whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen, chosen, epsilon_of, no_epsilon
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.grid import SUSPICIOUS, Grid
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import Remarks, name_of
from orchestrator.results.judged import transfer_table
from orchestrator.results.matrix import BLIND
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, RobustnessTable, of_one_attack
from workers.flags import Flag

_SAME = "°"


@dataclass
class _Who:
    """Who breaks whom, under one attack at one epsilon. Names are those that figures give to rows."""

    title: str
    names: list[str]
    own: dict[str, Entry]  # attacked itself
    flags: dict[str, set[str]]  # of that, those of `BLIND`
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)  # source, target -> rows


def transfer(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw the robust accuracy of each model (a column) against images made against each (a row), a panel for
    each dataset, norm and attack whose images were tried on others, at one epsilon. On the diagonal stands
    what the attack leaves of the model that it was run on."""
    found = chosen(results, choice.wanted, choice.by)
    tried = transfer_table(results).to_pylist()
    if not tried:
        raise UserError("nothing to draw: no attack of these has `transfer: true` in its grid")
    at = [
        (table, epsilon)
        for table in found.tables
        if (epsilon := epsilon_of(table, choice.epsilon)) is not None
    ]
    if not at:
        raise no_epsilon(found.tables, choice.epsilon or 0.0)
    grids = [grid for table, epsilon in at for grid in _grids(found, table, epsilon, tried)]
    if not grids:
        raise UserError(
            "nothing to draw: images of none of these attacks were tried on others of these models"
        )
    shapes = [Grid(grid.names, grid.names) for grid in grids]
    page = Page(
        len(grids),
        width=choice.width,
        panel_width=max(shape.width for shape in shapes),
        panel_height=max(shape.height for shape in shapes) + 0.15,
    )
    remarks = Remarks()
    same = False
    blind: set[Flag] = set()
    for grid, shape, axes in zip(grids, shapes, page.panels, strict=True):
        page.title(axes, grid.title, beside=shape.beside + 0.3)
        shape.frame(axes)
        for source in grid.names:
            for target in grid.names:
                if source == target and target in grid.own:
                    entry = grid.own[target]
                    remarks.see(entry, f"{target}, {grid.title}")
                    doubted = entry.verdict == "suspicious"
                    shape.cell(
                        *(axes, source, target, entry.value),
                        mark=entry.mark,
                        suspicious=doubted,
                        aside=_marks(grid.flags.get(target, ()), blind),
                        bold=True,
                    )
                elif cells := grid.pairs.get((source, target)):
                    value, mark = _of(cells)
                    if mark:
                        remarks.holes.setdefault(mark, []).append(f"{source} → {target}, {grid.title}")
                    remarks.see_names(name for cell in cells for name in cell["checks"])
                    networks = all(cell["same_network"] for cell in cells)
                    same |= networks
                    doubted = any(cell["verdict"] == "suspicious" for cell in cells)
                    flags = {flag for cell in cells for flag in cell["flags"]}
                    aside = (_SAME if networks else "") + _marks(flags if not mark else (), blind)
                    shape.cell(axes, source, target, value, mark=mark, suspicious=doubted, aside=aside)
        axes.set_xlabel("tried on")
        axes.set_ylabel("made against")
    page.note(
        "robust accuracy in percent of the model of a column against images made against that of a row, with "
        "the whole budget spent; bold: attacked itself, stopped at the first success"
    )
    page.note("dark: little, light: much; epsilon on the [0, 1] scale")
    if same:
        page.note(f"{_SAME} the same network behind another defence, which is no transfer between models")
    for flag in sorted(blind, key=BLIND.index):
        page.note(f"{flag.mark} where these images were made: {flag.meaning}")
    remarks.say(page, bands=None, suspicious=SUSPICIOUS)
    return page.finished()


def _grids(
    found: Chosen, table: RobustnessTable, epsilon: float, tried: Sequence[Mapping[str, Any]]
) -> list[_Who]:
    """One for each attack of a table whose images were tried on others."""
    names = {
        (row.sweep, cell["victim_id"]): name_of(table, row)
        for row in table.rows
        for cell in found.cells_of(row)
    }
    place = table.epsilons.index(epsilon)
    grids: dict[str, _Who] = {}
    for label in dict.fromkeys(row.attack_label for row in table.rows if of_one_attack(row)):
        rows = [row for row in table.rows if row.attack_label == label]
        own = {name_of(table, row): entry for row in rows if (entry := row.entries[place]) is not None}
        title = f"{table.dataset_label}, {table.norm}, {label}, epsilon {epsilon_text(epsilon)}"
        of = {(row.attack, row.attack_options, row.adaptive) for row in rows}
        flags: dict[str, set[str]] = {}
        for row in rows:
            at = (cell for cell in found.cells_of(row) if cell["epsilon"] == epsilon)
            flags.setdefault(name_of(table, row), set()).update(flag for cell in at for flag in cell["flags"])
        grid = _Who(title, list(dict.fromkeys(name_of(table, row) for row in rows)), own, flags)
        for cell in tried:
            key = cell["attack"], cell["attack_options"], cell["adaptive"]
            source = names.get((cell["sweep"], cell["source_id"]))
            target = names.get((cell["sweep"], cell["victim_id"]))
            here = (cell["dataset"], cell["norm"]) == (table.dataset, table.norm) and cell[
                "epsilon"
            ] == epsilon
            if here and key in of and source and target:
                grid.pairs.setdefault((source, target), []).append(dict(cell))
        if grid.pairs:
            grids[label] = grid
    return list(grids.values())


def _marks(flags: Collection[str], seen: set[Flag]) -> str:
    """Those of flags that say that images were made blindly, which `seen` takes note of."""
    found = [flag for flag in BLIND if flag in flags]
    seen.update(found)
    return "".join(flag.mark for flag in found)


def _of(cells: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Of all training seeds: the mean, or why there is none."""
    if holes := sorted({cell["status"] for cell in cells} - {"done"}):
        return None, holes[0]
    if any(cell["verdict"] == "wrong" for cell in cells):
        return None, "wrong"
    column = "target_missed" if any(cell["targeted"] for cell in cells) else "robust_accuracy"
    return fmean(cell[column] for cell in cells), ""
