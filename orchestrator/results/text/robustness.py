"""The words and numbers of a robustness table, for whatever format people read it in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.results.checks import RULES
from orchestrator.results.tables import WORST_CASE, Entry, RobustnessTable, Row
from orchestrator.results.text.base import NO_VALUE
from workers.flags import Flag

_FOOTNOTES = 5
"""How many rules a table explains; `verify` knows them all."""

_MORE = "⁺"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

FIRST_ENTRY = 4
"""The first of the columns that hold entries."""


def header(table: RobustnessTable) -> tuple[list[str], list[bool]]:
    """The names of its columns, and which of them hold numbers."""
    epsilons = list(map(epsilon_text, table.epsilons))
    if len(set(epsilons)) < len(epsilons):
        pairs = zip(epsilons, table.epsilons, strict=True)
        epsilons = [text if "/" in text else repr(epsilon) for text, epsilon in pairs]
    names = ["model", "defence", "attack"]
    numbers = ["clean", *epsilons, "n"]
    return names + numbers, [False] * len(names) + [True] * len(numbers)


def epsilon_text(epsilon: float) -> str:
    """An epsilon as a grid writes it: `8/255` where it is the float of that fraction, else as a decimal.

    The same as `orchestrator.grid.numbers.number_text` says of the exact number, but for other fractions.
    """
    levels = round(epsilon * 255)
    if 0 < levels < 255 and epsilon == levels / 255 and float(f"{epsilon:.6g}") != epsilon:
        return f"{levels // 85}/3" if levels % 85 == 0 else f"{levels}/255"
    return f"{epsilon:.4g}"


def footnotes(table: RobustnessTable) -> dict[str, str]:
    """Rule -> its mark, of those that make a number of the table wrong or suspicious, the gravest first.

    Flags have marks of their own. Beyond the first few all rules share one mark.
    """
    broken = {name for row in table.rows for name in row.checks} - set(Flag)
    names = [name for name in RULES if name in broken and RULES[name].severity != "note"]
    return {
        name: str(i).translate(_SUPERSCRIPTS) if i <= _FOOTNOTES else _MORE for i, name in enumerate(names, 1)
    }


def labels(row: Row, notes: Mapping[str, str]) -> tuple[str, str, str]:
    """Model with its marks, defence, attack. `notes` are the table's `footnotes`."""
    marks = "".join(flag.mark for flag in Flag if flag in row.flags)
    marks += "".join(dict.fromkeys(notes[name] for name in row.checks if name in notes))
    return f"{row.model_label} {marks}".rstrip(), row.defence, row.attack_label


def rows(table: RobustnessTable) -> list[list[str]]:
    """What stands in the columns of `header`, row by row."""
    notes = footnotes(table)
    return [
        [
            *labels(row, notes),
            percent(row.clean_accuracy, row.clean_sd),
            *(entry_text(entry, notes) for entry in row.entries),
            examples(row),
        ]
        for row in table.rows
    ]


def constant(table: RobustnessTable) -> dict[str, str]:
    """The labels, all but one, and `n`, where they are the same in every row: column -> text."""
    names, _ = header(table)
    columns = list(zip(*rows(table), strict=True))
    same = {
        name: column[0]
        for name, column in zip(names, columns, strict=True)
        if name in ("model", "defence", "attack", "n") and len(set(column)) == 1
    }
    if {"model", "defence", "attack"} <= same.keys():
        del same["model"]
    return same


def title(table: RobustnessTable) -> str:
    return f"{table.dataset}, {table.norm}: robust accuracy by epsilon"


def caption(table: RobustnessTable, left_out: Mapping[str, str] | None = None) -> str:
    """How many examples, which scale, how uncertain, and what the marks mean.

    `left_out`: columns that it speaks for, as `constant` gives them.
    """
    left_out = left_out or {}
    entries = [entry for row in table.rows for entry in row.entries if entry is not None]
    counts = sorted({entry.n // entry.seeds for entry in entries if entry.status == "done"})
    parts = [f"{name} {text}" for name, text in left_out.items() if name != "n"]
    if counts:
        n = left_out.get("n") or "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        parts.append(f"n = {n} test examples" if n.isdecimal() or "n" not in left_out else f"n = {n}")
    parts.append("epsilon on the [0, 1] scale")
    halves = [(e.high - e.low) / 2 for e in entries if e.high is not None and e.low is not None]
    if halves:
        parts.append(f"95% intervals (test sampling only) at most ±{100 * max(halves):.1f} points")
    if any(entry.sd is not None for entry in entries):
        parts.append("mean ± SD over training seeds")
    if any(row.targeted for row in table.rows):
        parts.append("targeted: share right and not driven to the target class, which is no robust accuracy")
    parts += _worst_case(table)
    flags = {flag for row in table.rows for flag in row.flags}
    parts += [f"{flag.mark} {flag.meaning}" for flag in Flag if flag in flags]
    notes = footnotes(table)
    parts += [
        f"{mark} {RULES[name].severity}: {RULES[name].meaning}"
        for name, mark in notes.items()
        if mark != _MORE
    ]
    if more := list(notes.values()).count(_MORE):
        parts.append(f"{_MORE} {more} more: robustsweep verify")
    return "; ".join(parts)


def _worst_case(table: RobustnessTable) -> Iterator[str]:
    """What its worst cases are of, and at which epsilons that is less than all."""
    epsilons = header(table)[0][FIRST_ENTRY:-1]
    rows = [row for row in table.rows if row.attack == WORST_CASE]
    at: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        most = {attack for entry in row.entries if entry for attack in entry.attacks}
        for entry, epsilon in zip(row.entries, epsilons, strict=True):
            if entry and not entry.mark and set(entry.attacks) != most:
                at.setdefault(entry.attacks, []).append(epsilon)
    if rows:
        yield "worst case: broken by any of the adaptive, untargeted attacks"
        for attacks, where in at.items():
            yield f"at {', '.join(dict.fromkeys(where))} of {' and '.join(attacks)} alone"


def examples(row: Row) -> str:
    """Examples of the entries that are done: `500`, or `500 × 3 seeds`; a dash where none is."""
    done = [entry for entry in row.entries if entry is not None and entry.status == "done"]
    if not done:
        return NO_VALUE
    most = max(done, key=lambda entry: entry.n)
    per_seed = most.n // most.seeds
    return f"{per_seed} × {most.seeds} seeds" if most.seeds > 1 else str(per_seed)


def entry_text(entry: Entry | None, notes: Mapping[str, str]) -> str:
    """A number, or why there is none; one that a check calls wrong is not shown, but which check does."""
    if entry is None:
        return NO_VALUE
    if entry.mark != "wrong":
        return entry.mark or percent(entry.value, entry.sd)
    rules = (name for name in entry.checks if RULES[name].severity == "wrong")
    return "wrong" + "".join(dict.fromkeys(notes[name] for name in rules if name in notes))


def percent(value: float | None, sd: float | None) -> str:
    if value is None:
        return NO_VALUE
    return f"{100 * value:.1f}%" if sd is None else f"{100 * value:.1f} ± {100 * sd:.1f}%"
