"""Which rows of robustness tables sum a victim up, and what each of them is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orchestrator.results.display import behind
from orchestrator.results.metrics import WITH_TRANSFER, WORST_CASE
from orchestrator.results.tables import Entry, RobustnessTable, Row


class Contest(NamedTuple):
    """The victims of one dataset and norm, each by the row that sums it up."""

    table: RobustnessTable
    rows: list[Row]  # of their worst cases; of the one attack that counts, where a victim has no other

    def with_transfer(self, row: Row, column: int) -> Entry | None:
        """What is left of a victim at an epsilon where images made against others count too, if they do."""
        for other in self.table.rows:
            if other.attack == WITH_TRANSFER and victim_key(other) == victim_key(row):
                return other.entries[column]
        return None

    def at(self, column: int) -> list[tuple[Row, Entry]]:
        """Those that have an entry at an epsilon."""
        return [(row, entry) for row in self.rows if (entry := row.entries[column]) is not None]


def contests(tables: Sequence[RobustnessTable]) -> list[Contest]:
    """One for each table; its rows are none where every attack is oblivious or targeted."""
    return [Contest(table, list(_summing_up(table))) for table in tables]


def _summing_up(table: RobustnessTable) -> Iterator[Row]:
    victims: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        victims.setdefault(victim_key(row), []).append(row)
    for rows in victims.values():
        worst = [row for row in rows if row.attack == WORST_CASE]
        counted = [row for row in rows if row.adaptive and not row.targeted and row.attack != WITH_TRANSFER]
        yield from worst or (counted if len(counted) == 1 else ())


def victim_key(row: Row) -> tuple[str, ...]:
    """What the rows of a victim share, its training seeds together."""
    return row.sweep, row.model, row.model_options, row.recipe, row.defence


def victim_name(row: Row, table: RobustnessTable) -> str:
    """A victim in a sentence: its model, its defence where it has one, its sweep where there are several."""
    sweep = f" in {row.sweep}" if table.sweeps else ""
    return f"{row.model_label}{behind(row.defence, row.defence_label)}{sweep}"
