"""What checks find, in words: for `verify`, and for the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from orchestrator.results.checks import RULES
from orchestrator.results.checks.rule import SEVERITIES
from orchestrator.results.schemas import Results
from orchestrator.results.text.layout import wrapped
from workers.flags import Severity

_SHOWN = 5

STYLES: dict[Severity, str] = {"wrong": "bold red", "suspicious": "yellow", "note": "dim"}


def lines(checks: pa.Table, unprobed: int, width: int | None = None) -> Iterator[tuple[Severity | None, str]]:
    """Every rule that fired, the gravest first, with some of what it found; the last line says what it comes
    to. Lines with their severity, where they have one.

    `checks` are `orchestrator.results.checks.CHECKS`; `unprobed` is how many victims have no figures.
    """
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in checks.to_pylist():
        by_rule.setdefault(row["rule"], []).append(row)
    for name, rows in by_rule.items():
        rule = RULES[name]
        yield rule.severity, f"{rule.severity}: {name}"
        yield from _indented(f"{rule.meaning}.", width)
        for row in rows[:_SHOWN]:
            yield from _indented(f"- {row['place']}: {row['message']}.", width)
        if len(rows) > _SHOWN:
            yield None, f"  - and {len(rows) - _SHOWN:,} more"
        yield from _indented(f"What to do: {rule.advice}.", width)
        yield None, ""
    if unprobed:
        victims = f"{unprobed:,} victim{'s' if unprobed != 1 else ''} not probed"
        text = f"{victims}: of gradients, batches and repeated calls only what attacks have met is known"
        yield from ((None, line) for line in wrapped(text, width))
    worst: Severity | None = RULES[checks["rule"][0].as_py()].severity if checks.num_rows else None
    yield from ((worst, line) for line in wrapped(verdict(checks), width))


def show(console: Console, checks: pa.Table, *, unprobed: int) -> None:
    """Print `lines` as wide as a terminal is, in the colours of their severities."""
    for severity, text in lines(checks, unprobed, console.width if console.is_terminal else None):
        style = STYLES[severity] if severity else ""
        console.print(escape(text), style=style, highlight=False, soft_wrap=True)


def brief(checks: pa.Table) -> list[tuple[Severity, str]]:
    """A line for each rule that found something wrong or suspicious, with one of its places."""
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in checks.to_pylist():
        if row["severity"] != "note":
            by_rule.setdefault(row["rule"], []).append(row)
    found = []
    for name, (first, *others) in by_rule.items():
        more = f" (and {len(others):,} more)" if others else ""
        found.append((RULES[name].severity, f"{name}, {first['place']}: {first['message']}{more}"))
    return found


def counts(checks: pa.Table) -> dict[Severity, int]:
    """How many findings there are of each severity."""
    counted = Counter(checks["severity"].to_pylist())
    return {severity: counted[severity] for severity in SEVERITIES}


def unprobed(results: Results) -> int:
    """How many victims of the grid have no figures, which half of the rules need."""
    return len(set(results.wanted["victim_id"].to_pylist()) - set(results.probes["victim_id"].to_pylist()))


def verdict(checks: pa.Table) -> str:
    """What it comes to, in one sentence."""
    found = counts(checks)
    notes = f", {found['note']:,} note{'s' if found['note'] != 1 else ''}" if found["note"] else ""
    if found["wrong"]:
        return (
            f"{found['wrong']:,} wrong, {found['suspicious']:,} suspicious{notes}: a number that is wrong is "
            "shown in no table"
        )
    if found["suspicious"]:
        return (
            f"nothing is wrong, but {found['suspicious']:,} suspicious{notes}: models may be far less robust "
            "than their numbers say"
        )
    return f"nothing is wrong or suspicious{notes}"


def _indented(text: str, width: int | None) -> Iterator[tuple[None, str]]:
    for i, line in enumerate(wrapped(text, width and max(width - 4, 20))):
        yield None, f"  {line}" if i == 0 else f"    {line}"
