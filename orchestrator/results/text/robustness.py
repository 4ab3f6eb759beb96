"""The words and numbers of a robustness table, for whatever format people read it in."""

from __future__ import annotations

from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text.base import NO_VALUE
from workers.flags import Flag


def header(table: RobustnessTable) -> tuple[list[str], list[bool]]:
    """The names of its columns, and which of them hold numbers."""
    epsilons = [f"{epsilon:.4g}" for epsilon in table.epsilons]
    if len(set(epsilons)) < len(epsilons):
        epsilons = [repr(epsilon) for epsilon in table.epsilons]
    names = ["model", "defence", "attack"]
    numbers = ["clean", *epsilons, "n"]
    return names + numbers, [False] * len(names) + [True] * len(numbers)


def labels(row: Row) -> tuple[str, str, str]:
    """Model with its marks, defence, attack."""
    marks = "".join(flag.mark for flag in Flag if flag in row.flags)
    return f"{row.model_label} {marks}".rstrip(), row.defence, row.attack_label


def title(table: RobustnessTable) -> str:
    return f"{table.dataset}, {table.norm}: robust accuracy by epsilon"


def caption(table: RobustnessTable) -> str:
    """How many examples, which scale, how uncertain, and what the marks mean."""
    entries = [entry for row in table.rows for entry in row.entries if entry is not None]
    counts = sorted({entry.n // entry.seeds for entry in entries if entry.status == "done"})
    parts = ["epsilon on the [0, 1] scale"]
    if counts:
        parts.insert(
            0, f"n = {'–'.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} test examples"
        )
    halves = [(e.high - e.low) / 2 for e in entries if e.high is not None and e.low is not None]
    if halves:
        parts.append(f"95% intervals (test sampling only) at most ±{100 * max(halves):.1f} points")
    if any(entry.sd is not None for entry in entries):
        parts.append("mean ± SD over training seeds")
    flags = {flag for row in table.rows for flag in row.flags}
    parts += [f"{flag.mark} {flag.meaning}" for flag in Flag if flag in flags]
    return "; ".join(parts)


def examples(row: Row) -> str:
    """Examples of the entries that are done: `500`, or `500 × 3 seeds`; a dash where none is."""
    done = [entry for entry in row.entries if entry is not None and entry.status == "done"]
    if not done:
        return NO_VALUE
    most = max(done, key=lambda entry: entry.n)
    per_seed = most.n // most.seeds
    return f"{per_seed} × {most.seeds} seeds" if most.seeds > 1 else str(per_seed)


def entry_text(entry: Entry | None) -> str:
    if entry is None:
        return NO_VALUE
    return entry.mark or percent(entry.value, entry.sd)


def percent(value: float | None, sd: float | None) -> str:
    if value is None:
        return NO_VALUE
    return f"{100 * value:.1f}%" if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f}%"
