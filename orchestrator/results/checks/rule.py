"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from workers.flags import Severity
from workers.shards import DIMENSIONS

if TYPE_CHECKING:
    from orchestrator.results.checks.evidence import Cell, Evidence

SEVERITIES: tuple[Severity, ...] = ("wrong", "suspicious", "note")
"""The gravest first."""

CHECKS = pa.schema(
    [
        ("rule", pa.string()),
        ("severity", pa.string()),  # one of `SEVERITIES`
        *DIMENSIONS,  # null as far as the finding is of more than one cell
        ("place", pa.string()),  # what it is of, in words
        ("figure", pa.float64()),
        ("allowed", pa.float64()),
        ("message", pa.string()),
        ("advice", pa.string()),
    ]
)
"""One row for each finding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a finding is of: a cell; all cells of an attack on a victim, of a victim, of a dataset, or all.

    Those of `workers.shards.DIMENSIONS` that it says, None for the others.
    """

    cell_id: str | None = None
    victim_id: str | None = None
    attack_id: str | None = None
    model: str | None = None
    model_options: str | None = None
    dataset: str | None = None
    defence: str | None = None
    seed: int | None = None
    attack: str | None = None
    attack_options: str | None = None
    norm: str | None = None
    adaptive: bool | None = None
    epsilon: float | None = None


class Found(NamedTuple):
    """One finding of a rule."""

    place: Place
    figure: float  # what was measured
    allowed: float  # what it may be at the most, or at the least
    message: str  # one sentence, with the numbers


def every(cell: Cell) -> bool:
    """Whatever an attack found, and if it was at epsilon 0."""
    return True


def attacked(cell: Cell) -> bool:
    """Cells whose number may be too high: robust accuracy is an upper bound, which 0 cannot be above."""
    return bool(cell.epsilon > 0 and cell.robust > 0)


def by_gradients(cell: Cell) -> bool:
    """Those of `attacked` whose attack goes by gradients alone; the bundle has a member that does not."""
    return attacked(cell) and cell.kind.white_box and cell.kind.name != "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that may be wrong with numbers.

    `wrong`: a number is not what it says. `suspicious`: a model may be far less robust than a number says.
    `note`: worth knowing. `find` is a pure function of what a folder holds. A finding of a cell speaks of
    that cell; `concerns` says of which cells one of a victim or an attack speaks.
    """

    name: str
    severity: Severity
    meaning: str  # what is so where it fires, for footnotes and documentation
    advice: str  # what to do then
    find: Callable[[Evidence], Iterator[Found]]
    concerns: Callable[[Cell], bool] = attacked
    spreads: bool = True  # to a worst case, all searches of which have it
    makes_up: bool = False  # successes that are none, so that the worst case suffers too; else it hides some

    def rows(self, evidence: Evidence) -> Iterator[dict[str, Any]]:
        """What it finds, as rows of `CHECKS`."""
        for place, figure, allowed, message in self.find(evidence):
            of = {name: getattr(place, name) for name in Place.__slots__}
            yield {
                **of,
                "place": evidence.placed.place(of),
                "rule": self.name,
                "severity": self.severity,
                "figure": figure,
                "allowed": allowed,
                "message": message,
                "advice": self.advice,
            }
