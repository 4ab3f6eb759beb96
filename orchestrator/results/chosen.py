"""The part of sweeps that is asked for: rows of robustness tables, and the cells that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ChoiceError, UserError
from orchestrator.results.choice import choose
from orchestrator.results.display import epsilon_text
from orchestrator.results.judged import cells_and_worst_cases
from orchestrator.results.schemas import Results
from orchestrator.results.tables import RobustnessTable, Row, robustness_tables

_NEAR = 1e-9


@dataclass(frozen=True)
class Chosen:
    """The part of some sweeps that is asked for."""

    tables: list[RobustnessTable]
    cells: dict[tuple[str, str], dict[str, Any]]  # rows of the view `cells`, by sweep and cell id

    def cells_of(self, row: Row) -> list[dict[str, Any]]:
        return [self.cells[row.sweep, cell_id] for cell_id in row.cell_ids]


def chosen(results: Sequence[Results], wanted: Mapping[str, Sequence[str]], by: Sequence[str] = ()) -> Chosen:
    """What `results.choice.choose` makes of them; UserError also where there is nothing at all."""
    cells, worst = cells_and_worst_cases(results)
    tables = choose(robustness_tables(cells, worst), wanted, by)
    if not tables:
        raise UserError("there is no cell")
    return Chosen(tables, {(cell["sweep"], cell["cell_id"]): cell for cell in cells.to_pylist()})


def epsilon_of(table: RobustnessTable, asked: float | None) -> float | None:
    """The one epsilon that is shown of a table: the one asked for, None where the table has it not; or the
    one in the middle of those above 0."""
    if asked is not None:
        return next((one for one in table.epsilons if abs(one - asked) <= _NEAR), None)
    above = [one for one in table.epsilons if one > 0] or list(table.epsilons)
    return above[(len(above) - 1) // 2]


def no_epsilon(tables: Sequence[RobustnessTable], asked: float) -> UserError:
    """The error where no table has the epsilon that is asked for."""
    there = sorted({epsilon for table in tables for epsilon in table.epsilons})
    return ChoiceError(
        "epsilon", f": found {epsilon_text(asked)}; there are: {', '.join(map(epsilon_text, there))}"
    )
