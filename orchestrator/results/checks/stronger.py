"""The rule that holds numbers against what `strengthen` found: stronger attacks on their survivors."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.results.checks.cells import POINT, SOME
from orchestrator.results.checks.evidence import Evidence
from orchestrator.results.checks.rule import Found, Place, Rule
from orchestrator.results.strengthened import Change, changes


def matters(change: Change) -> bool:
    """Whether a number has not converged: more than a point of its examples are broken after all."""
    return change.broken > POINT * change.n and change.broken >= SOME


def _not_converged(evidence: Evidence) -> Iterator[Found]:
    for change in changes(evidence.strengthened):
        if matters(change):
            yield Found(
                Place(**change.of),
                change.broken / change.n,
                POINT,
                f"of {change.survivors:,} survivors {change.broken:,} fall to {change.by}: robust accuracy "
                f"would be {100 * change.after:.1f}%, not {100 * change.before:.1f}%",
            )


RULES = (
    Rule(
        name="not_converged",
        severity="suspicious",
        meaning="a stronger attack on the survivors breaks more than a point of the examples",
        advice="give the attack more steps and restarts, or add the stronger one to the grid",
        find=_not_converged,
        spreads=False,
    ),
)
