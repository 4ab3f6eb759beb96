"""Every model under every attack at one epsilon, in numbers and colours."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.results.chosen import chosen, epsilon_of, no_epsilon
from orchestrator.results.display import epsilon_text
from orchestrator.results.figures import Choice
from orchestrator.results.figures.grid import SUSPICIOUS, Grid
from orchestrator.results.figures.page import Drawing, Page
from orchestrator.results.figures.series import Remarks, name_of
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.schemas import Results
from orchestrator.results.tables import RobustnessTable
from orchestrator.results.text.robustness import ABOUT_WITH_TRANSFER, ABOUT_WORST_CASE


def heatmap(results: Sequence[Results], choice: Choice) -> Drawing:
    """Draw robust accuracy, a row for each model and defence, a column for each attack, a panel for each
    dataset and norm, at one epsilon. What has no number says why."""
    tables = chosen(results, choice.wanted, choice.by).tables
    at = [(table, epsilon) for table in tables if (epsilon := epsilon_of(table, choice.epsilon)) is not None]
    if not at:
        raise no_epsilon(tables, choice.epsilon or 0.0)
    grids = [_grid(table) for table, _ in at]
    page = Page(
        len(grids),
        width=choice.width,
        panel_width=max(grid.width for grid in grids),
        panel_height=max(grid.height for grid in grids),
    )
    remarks = Remarks()
    for (table, epsilon), grid, axes in zip(at, grids, page.panels, strict=True):
        where = f"{table.dataset_label}, {table.norm}, epsilon {epsilon_text(epsilon)}"
        title = ", ".join([where, *(value for _, value in table.by)])
        page.title(axes, title, beside=grid.beside + 0.15)
        grid.frame(axes)
        for row in table.rows:
            if (entry := row.entries[table.epsilons.index(epsilon)]) is None:
                continue
            name = name_of(table, row)
            remarks.see(entry, f"{name} under {row.attack_label}, {where}")
            suspicious = entry.verdict == "suspicious"
            grid.cell(axes, name, row.attack_label, entry.value, mark=entry.mark, suspicious=suspicious)
    page.note("robust accuracy in percent; epsilon on the [0, 1] scale; dark: little, light: much")
    attacks = {row.attack for table, _ in at for row in table.rows}
    for attack, about in ((WORST_CASE, ABOUT_WORST_CASE), (WITH_TRANSFER, ABOUT_WITH_TRANSFER)):
        if attack in attacks:
            page.note(about)
    if any(row.targeted for table, _ in at for row in table.rows):
        page.note("targeted: share right and not driven to the target, which is no robust accuracy")
    remarks.say(page, bands=None, suspicious=SUSPICIOUS)
    return page.finished()


def _grid(table: RobustnessTable) -> Grid:
    names = dict.fromkeys(name_of(table, row) for row in table.rows)
    return Grid([*names], [*dict.fromkeys(row.attack_label for row in table.rows)])
