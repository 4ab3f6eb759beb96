"""Rows of robustness tables as series of a figure: which are drawn where, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.results.checks import RULES
from orchestrator.results.chosen import Chosen, chosen
from orchestrator.results.figures import Choice
from orchestrator.results.figures.page import Notes
from orchestrator.results.figures.style import Look, looks
from orchestrator.results.metrics import WORST_CASE
from orchestrator.results.schemas import Results
from orchestrator.results.tables import Entry, RobustnessTable, Row
from workers.unit import NO_DEFENCE

_RULES = 5  # how many rules a figure explains; `verify` knows them all

Point = tuple[float, Entry]
"""An epsilon, and the number there."""


@dataclass(frozen=True)
class Panel:
    """What one panel shows: rows of one table under one attack."""

    table: RobustnessTable
    attack: str  # as people read it
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        by = [value for key, value in self.table.by if key != "attack"]
        return ", ".join([self.table.dataset_label, self.table.norm, *by, self.attack])

    @property
    def targeted(self) -> bool:
        return any(row.targeted for row in self.rows)


def share_text(panel: Panel) -> str:
    """What the axis of its numbers is called."""
    return "right and not driven to the target (%)" if panel.targeted else "robust accuracy (%)"


def model_of(table: RobustnessTable, row: Row) -> str:
    """What a row's colour stands for."""
    return f"{row.sweep}: {row.model_label}" if table.sweeps else row.model_label


def name_of(table: RobustnessTable, row: Row) -> str:
    """What a legend calls a row."""
    undefended = row.defence == NO_DEFENCE.name == row.defence_label
    return model_of(table, row) if undefended else f"{model_of(table, row)}, {row.defence_label}"


def look_of(table: RobustnessTable, row: Row) -> tuple[str, str]:
    """Its key of `style.looks`."""
    return model_of(table, row), row.defence_label


def panels(tables: Sequence[RobustnessTable], choice: Choice, page_note: list[str]) -> list[Panel]:
    """A panel for each table and attack; unless attacks are asked for, of the worst case where there is one.

    What is left out so is said in `page_note`.
    """
    found: list[Panel] = []
    for table in tables:
        rows = {name: [row for row in table.rows if row.attack_label == name] for name in _attacks(table)}
        if not (choice.wanted.get("attack") or "attack" in choice.by) and WORST_CASE in rows:
            worst = rows[WORST_CASE]
            drawn = {name_of(table, row) for row in worst}
            left = dict.fromkeys(name_of(table, row) for row in table.rows)
            if others := [name for name in left if name not in drawn]:
                page_note.append(
                    f"{table.dataset_label}, {table.norm}: without {', '.join(others)}, of one attack alone"
                )
            rows = {WORST_CASE: worst}
        found += [Panel(table, name, tuple(some)) for name, some in rows.items()]
    return found


def panels_by_attack(
    results: Sequence[Results], choice: Choice, fits: Callable[[Chosen, Row], bool]
) -> tuple[Chosen, list[Panel]]:
    """What is asked for, and a panel for each table and attack with the rows of it that fit, if any do."""
    asked = Choice(wanted=choice.wanted, by=tuple(dict.fromkeys((*choice.by, "attack"))))
    found = chosen(results, asked.wanted, asked.by)
    drawn = [
        Panel(panel.table, panel.attack, rows)
        for panel in panels(found.tables, asked, [])
        if (rows := tuple(row for row in panel.rows if fits(found, row)))
    ]
    return found, drawn


def looks_of(drawn: Sequence[Panel]) -> dict[tuple[str, str], Look]:
    """What the lines of panels look like, by `look_of`."""
    return looks(list(dict.fromkeys(look_of(panel.table, row) for panel in drawn for row in panel.rows)))


def points_of(panel: Panel, row: Row) -> list[Point]:
    """The numbers of a row; where the grid has none, nothing is missing."""
    return [
        (epsilon, entry)
        for epsilon, entry in zip(panel.table.epsilons, row.entries, strict=True)
        if entry is not None
    ]


def _attacks(table: RobustnessTable) -> list[str]:
    return list(dict.fromkeys(row.attack_label for row in table.rows))


@dataclass
class Remarks:
    """What has to be said of what is drawn, and of what is not."""

    holes: dict[str, list[str]] = field(default_factory=dict)  # why -> where
    rules: dict[str, None] = field(default_factory=dict)
    examples: set[int] = field(default_factory=set)
    seeds: bool = False
    intervals: bool = False
    attacks: dict[str, dict[tuple[str, ...], list[str]]] = field(default_factory=dict)

    def see(self, entry: Entry, where: str) -> None:
        """Take note of an entry that is, or should be, drawn."""
        self.see_rules(entry)
        if entry.mark:
            self.holes.setdefault(entry.mark.partition(" ")[0], []).append(
                f"{where} ({entry.n}/{entry.examples})" if entry.mark.startswith("partial") else where
            )
        elif entry.status == "done":
            self.examples.add(entry.n // entry.seeds)
        self.seeds |= entry.sd is not None
        self.intervals |= entry.low is not None

    def see_rules(self, entry: Entry) -> None:
        """Take note of what checks say of an entry alone."""
        if entry.status == "done":
            self.see_names(entry.checks)

    def see_names(self, checks: Iterable[str]) -> None:
        """Take note of rules by name."""
        for name in checks:
            if RULES[name].severity in ("wrong", "suspicious"):
                self.rules[name] = None

    def say(
        self,
        page: Notes,
        *,
        bands: str | None = "bands",
        bars: bool = False,
        suspicious: str = "hollow points",
    ) -> None:
        """Put it below a figure; `bands` is what shows intervals, `bars` whether there are any of standard
        deviations, `suspicious` what such numbers have."""
        if self.examples:
            counts = sorted(self.examples)
            shown = "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
            text = f"n = {shown} test images"
            if self.intervals and bands:
                text += f"; {bands}: 95% intervals (test sampling only)"
            if self.seeds:
                text += "; mean over training seeds" + (", bars: ± SD" if bars else "")
            page.note(text)
        for why, places in self.holes.items():
            if why != "wrong":
                page.note(f"{why}, no number: {_some(places)}")
        wrong = [name for name in RULES if name in self.rules and RULES[name].severity == "wrong"]
        if self.holes.get("wrong"):
            page.note(f"wrong, no number: {_some(self.holes['wrong'])}")
        for i, name in enumerate([*wrong, *(n for n in RULES if n in self.rules and n not in wrong)]):
            if i == _RULES:
                page.note(f"{len(self.rules) - _RULES} more checks: robustsweep verify")
                break
            rule = RULES[name]
            said = f"{suspicious}, suspicious" if rule.severity == "suspicious" else rule.severity
            page.note(f"{said}: {rule.meaning}")


def _some(places: Sequence[str], most: int = 4) -> str:
    """Some places in words, and how many more there are."""
    each = list(dict.fromkeys(places))
    more = f" and {len(each) - most} more" if len(each) > most else ""
    return "; ".join(each[:most]) + more
