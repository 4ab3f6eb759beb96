"""The words and numbers of a robustness table, for whatever format people read it in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from orchestrator.results.checks import RULES
from orchestrator.results.display import epsilon_text
from orchestrator.results.metrics import ROBUST_ACCURACY, WITH_TRANSFER, WORST_CASE
from orchestrator.results.tables import Entry, RobustnessTable, Row
from orchestrator.results.text.base import NO_VALUE
from workers.flags import Flag
from workers.unit import label

_FOOTNOTES = 5
"""How many rules a table explains; `verify` knows them all."""

ABOUT_WORST_CASE = "worst case: right, and broken by none of the adaptive, untargeted attacks"
ABOUT_WITH_TRANSFER = (
    "worst case, with transfer: right, and broken neither by an adaptive, untargeted attack nor by any image "
    "made against another victim of this sweep"
)
"""What tables and figures say of their rows of several attacks together."""

_SCALE = "epsilon on the [0, 1] scale"
_MORE = "⁺"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

LABELS = ("sweep", "model", "defence", "attack")


def names(table: RobustnessTable) -> list[str]:
    """The columns that say what a row is of: those of `LABELS`, but for what its title says."""
    said = {key for key, _ in table.by} | (set() if table.sweeps else {"sweep"})
    return [name for name in LABELS if name not in said]


def epsilons(table: RobustnessTable) -> list[str]:
    """The names of the columns that hold entries."""
    texts = list(map(epsilon_text, table.epsilons))
    if len(set(texts)) < len(texts):
        pairs = zip(texts, table.epsilons, strict=True)
        texts = [text if "/" in text else repr(epsilon) for text, epsilon in pairs]
    return texts


def header(table: RobustnessTable) -> tuple[list[str], list[bool]]:
    """The names of its columns, and which of them hold numbers."""
    labels, numbers = names(table), ["clean", *epsilons(table), "n"]
    return labels + numbers, [False] * len(labels) + [True] * len(numbers)


def first_entry(table: RobustnessTable) -> int:
    """The first of the columns that hold entries."""
    return len(names(table)) + 1


def footnotes(table: RobustnessTable) -> dict[str, str]:
    """Rule -> its mark, of those that make a number of the table wrong or suspicious, the gravest first.

    Flags have marks of their own. Beyond the first few all rules share one mark.
    """
    broken = {name for row in table.rows for name in row.checks} - set(Flag)
    names = [name for name in RULES if name in broken and RULES[name].severity != "note"]
    return {
        name: str(i).translate(_SUPERSCRIPTS) if i <= _FOOTNOTES else _MORE for i, name in enumerate(names, 1)
    }


def marks(row: Row, notes: Mapping[str, str]) -> str:
    """What flags and checks say of a row. `notes` are the table's `footnotes`."""
    flags = "".join(flag.mark for flag in Flag if flag in row.flags)
    return flags + "".join(dict.fromkeys(notes[name] for name in row.checks if name in notes))


def labels(table: RobustnessTable, row: Row, notes: Mapping[str, str], *, marked: bool = True) -> list[str]:
    """What stands in the columns of `names`; marks are the model's, or the first's where there is none."""
    texts = {
        "sweep": row.sweep,
        "model": row.model_label,
        "defence": row.defence_label,
        "attack": row.attack_label,
    }
    shown = names(table)
    place = "model" if "model" in shown else next(iter(shown), "")
    found = marks(row, notes) if marked else ""
    return [f"{texts[name]} {found}".rstrip() if name == place else texts[name] for name in shown]


def rows(table: RobustnessTable, digits: int = 1) -> list[list[str]]:
    """What stands in the columns of `header`, row by row."""
    notes = footnotes(table)
    return [
        [
            *labels(table, row, notes),
            percent(row.clean_accuracy, row.clean_sd, digits),
            *(entry_text(entry, notes, table, digits) for entry in row.entries),
            examples(row),
        ]
        for row in table.rows
    ]


def constant(table: RobustnessTable, digits: int = 1) -> dict[str, str]:
    """The labels, all but one, and `n`, where they are the same in every row: column -> text."""
    columns = dict(zip(header(table)[0], zip(*rows(table, digits), strict=True), strict=True))
    same = {name: columns[name][0] for name in (*names(table), "n") if len(set(columns[name])) == 1}
    if set(names(table)) <= same.keys():
        del same[names(table)[0]]
    return same


def title(table: RobustnessTable) -> str:
    place = ", ".join([table.dataset_label, table.norm, *(value for _, value in table.by)])
    return f"{place}: {table.metric.title} by epsilon"


def caption(table: RobustnessTable, left_out: Mapping[str, str] | None = None) -> str:
    """How many examples, which scale, how uncertain, and what the marks mean.

    `left_out`: columns that it speaks for, as `constant` gives them.
    """
    parts = facts(table, left_out or {})
    entries = [entry for row in table.rows for entry in row.entries if entry is not None]
    if reaches := [reach for entry in entries if (reach := entry.reach) is not None]:
        text = f"95% intervals (test sampling only) at most ±{100 * max(reaches):.1f} points"
        parts.insert(parts.index(_SCALE) + 1, text)
    parts += [f"{NO_VALUE} {why}" for why in dict.fromkeys(entry.without for entry in entries) if why]
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


def facts(table: RobustnessTable, left_out: Mapping[str, str]) -> list[str]:
    """How many examples, which scale, what the numbers are of."""
    entries = [entry for row in table.rows for entry in row.entries if entry is not None]
    counts = sorted({entry.n // entry.seeds for entry in entries if entry.status == "done"})
    parts = [f"{name} {text}" for name, text in left_out.items() if name != "n"]
    if counts:
        n = left_out.get("n") or "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
        parts.append(f"n = {n} test examples" if n.isdecimal() or "n" not in left_out else f"n = {n}")
    parts.append(_SCALE)
    if any(entry.sd is not None for entry in entries):
        parts.append("mean ± SD over training seeds")
    if table.metric == ROBUST_ACCURACY and any(row.targeted for row in table.rows):
        parts.append("targeted: share right and not driven to the target class, which is no robust accuracy")
    return [*parts, *_worst_case(table)]


def said_of_best(table: RobustnessTable) -> str:
    """What bold numbers mean, and what it means where there is none; an empty text without a comparison."""
    told = [entry.best for row in table.rows for entry in row.entries if entry and entry.best is not None]
    if not told:
        return ""
    test = "(exact McNemar test on the same examples, Holm's correction, 5%)"
    if True not in told:
        return f"under no attack at any epsilon is one better than all others: tied, or not to be told {test}"
    where = "under that attack at that epsilon"
    return f"bold: better than all others {where}; elsewhere tied, or not to be told {test}"


def _worst_case(table: RobustnessTable) -> Iterator[str]:
    """What its worst cases are of, and at which epsilons that is less than all."""
    columns = epsilons(table)
    rows = [row for row in table.rows if row.attack == WORST_CASE]
    at: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        most = {attack for entry in row.entries if entry for attack in entry.attacks}
        for entry, epsilon in zip(row.entries, columns, strict=True):
            if entry and not entry.mark and set(entry.attacks) != most:
                at.setdefault(entry.attacks, []).append(epsilon)
    if rows:
        yield ABOUT_WORST_CASE
        known = attack_labels(table)
        for attacks, where in at.items():
            attacks = tuple(known.get(attack, attack) for attack in attacks)
            yield f"at {', '.join(dict.fromkeys(where))} of {' and '.join(attacks)} alone"
    if any(row.attack == WITH_TRANSFER for row in table.rows):
        yield ABOUT_WITH_TRANSFER


def attack_labels(table: RobustnessTable) -> dict[str, str]:
    """What people call the attacks that worst cases are of, by how those name them."""
    return {
        label(row.attack, row.attack_options): row.attack_label
        for row in table.rows
        if row.adaptive and not row.targeted
    }


def examples(row: Row) -> str:
    """Examples of the entries that are done: `500`, or `500 × 3 seeds`; a dash where none is."""
    done = [entry for entry in row.entries if entry is not None and entry.status == "done"]
    if not done:
        return NO_VALUE
    most = max(done, key=lambda entry: entry.n)
    per_seed = most.n // most.seeds
    return f"{per_seed} × {most.seeds} seeds" if most.seeds > 1 else str(per_seed)


def entry_text(entry: Entry | None, notes: Mapping[str, str], table: RobustnessTable, digits: int = 1) -> str:
    """A number, or why there is none; one that a check calls wrong is not shown, but which check does."""
    if entry is None:
        return NO_VALUE
    if entry.mark != "wrong":
        return entry.mark or value_text(entry.value, entry.sd, table, digits)
    rules = (name for name in entry.checks if RULES[name].severity == "wrong")
    return "wrong" + "".join(dict.fromkeys(notes[name] for name in rules if name in notes))


def value_text(value: float | None, sd: float | None, table: RobustnessTable, digits: int = 1) -> str:
    """A number of the table's metric: a share in percent, any other as `number`."""
    if table.metric.share or value is None:
        return percent(value, sd, digits)
    return number(value, digits) if sd is None else f"{number(value, digits)} ± {number(sd, digits)}"


def number(value: float, digits: int = 1) -> str:
    """With three significant digits more than a share has behind its point; a large one whole."""
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.{digits + 3}g}"


def percent(value: float | None, sd: float | None, digits: int = 1) -> str:
    if value is None:
        return NO_VALUE
    text = f"{100 * value:.{digits}f}"
    return f"{text}%" if sd is None else f"{text} ± {100 * sd:.{digits}f}%"
