"""A matrix of transfers, for people."""

from __future__ import annotations

from orchestrator.results.display import epsilon_text
from orchestrator.results.matrix import MATRIX_METRICS, Matrix, Number
from orchestrator.results.text.base import NO_VALUE, Columns
from orchestrator.results.text.robustness import percent
from workers.flags import Flag

_LABELS = ("sweep", "dataset", "norm", "attack", "epsilon")


def columns(matrix: Matrix, digits: int = 1, *, whole: bool = False) -> Columns:
    """A row for each victim that images are made against, attack and epsilon; a column for each victim that
    they are tried on. Labels that are the same in every row are left to `caption`, unless `whole`.
    """
    labels = [name for name in _LABELS if whole or len({getattr(row, name) for row in matrix.rows}) > 1]
    names = [*labels, "made against", *(f"on {name}" for name in matrix.victims)]
    rows = [
        [
            *(_label(row, name) for name in labels),
            row.source,
            *(_text(row.numbers.get(name), digits) for name in matrix.victims),
        ]
        for row in matrix.rows
    ]
    numeric = [*(name == "epsilon" for name in labels), False, *[True] * len(matrix.victims)]
    return Columns(names, rows, numeric, breaks=True)


def caption(matrix: Matrix) -> str:
    """What it shows, and of what."""
    first = matrix.rows[0]
    same = [name for name in _LABELS if len({getattr(row, name) for row in matrix.rows}) == 1]
    place = ", ".join(f"{name} {_label(first, name)}" for name in same if name != "sweep")
    numbers = [number for row in matrix.rows for number in row.numbers.values()]
    of = "all examples" if matrix.metric == "robust_accuracy" else "the examples that it gets right"
    parts = [f"{MATRIX_METRICS[matrix.metric]} of the victim that images are tried on, of {of}"]
    parts += [place] if place else []
    if any(number.white_box for number in numbers):
        parts.append("(in brackets): the attack on the victim itself, stopped at its first success")
    if matrix.metric == "robust_accuracy" and any("(targeted)" in row.attack for row in matrix.rows):
        parts.append("targeted: share right and not driven to the target class, which is no robust accuracy")
    if any(number.same_network for number in numbers):
        parts.append("* one network, behind another defence")
    flags = {flag for number in numbers for flag in number.blind}
    parts += [f"{flag.mark} {flag.meaning}" for flag in Flag if flag in flags]
    return "; ".join(parts)


def _label(row: object, name: str) -> str:
    value = getattr(row, name)
    return epsilon_text(value) if name == "epsilon" else str(value)


def _text(number: Number | None, digits: int) -> str:
    if number is None:
        return NO_VALUE
    text = number.mark or percent(number.value, None, digits) + "".join(flag.mark for flag in number.blind)
    if number.white_box:
        return f"({text})"
    return f"{text}*" if number.same_network else text
