"""How good attacks are, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.results.display import epsilon_text
from orchestrator.results.text.base import NO_VALUE, Columns, constant
from orchestrator.results.text.robustness import percent

_LABELS = ("sweep", "dataset", "norm", "model", "defence", "seed")


def columns(rows: Sequence[Mapping[str, Any]], digits: int = 1, *, whole: bool = False) -> Columns:
    """A row for each attack on each victim (`results.attacked.chosen_attacks`). Labels that are the same in
    every row are left to `caption`, unless `whole`."""
    labels = [name for name in _LABELS if whole or name not in constant(_LABELS, rows)]
    names = [*labels, "attack", "epsilons", "clean", "area", "of worst case", "optimality"]
    own = whole or len({_own(row) for row in rows}) > 1
    cells = [
        [
            *(row[name] for name in labels),
            row["attack"],
            _span(row["epsilons"]),
            percent(row["clean_accuracy"], None, digits),
            *_numbers(row, digits),
            _mean(row["forward_calls"]),
            _mean(row["gradient_calls"]),
            NO_VALUE if row["seconds"] is None else f"{row['seconds']:.3g}",
            *([f"{_own(row)}"] if own else []),
            f"{row['n']:,}",
        ]
        for row in rows
    ]
    names += ["forward", "gradient", "seconds", *(["own epsilons"] if own else []), "n"]
    numeric = [*(name == "seed" for name in labels), False, False, *[True] * (len(names) - len(labels) - 2)]
    return Columns(names, cells, numeric, breaks=True)


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the numbers are, and what they are not."""
    own = {_own(row) for row in rows}
    together = f"{own.pop()} " if len(own) == 1 else ""
    parts = [
        *(f"{name} {rows[0][name]}" for name in constant(_LABELS, rows) if name not in ("sweep", "seed")),
        "area: under robust accuracy against epsilon, from the clean accuracy at 0, straight between the "
        "epsilons that all attacks of the norm on the model cover, divided by the largest",
        "optimality: what the attack takes off the clean accuracy's area, of what the worst case takes "
        "(AttackBench, arXiv:2404.19460): against these attacks alone",
        "forward, gradient: images put through the model, and whose gradient was taken, per attacked "
        f"example, a mean, for all {together}of its own epsilons above 0 together; what serves several "
        "counts once",
        "seconds: likewise, with all that measuring takes",
    ]
    if len({row["device"] for row in rows if row["device"]}) > 1:
        parts.append("seconds are of several devices: they cannot be compared")
    why = {row["why"] for row in rows}
    parts += [f"{name}: {meaning}" for name, meaning in _WHY.items() if name in why]
    if any(row["verdict"] == "suspicious" and row["area"] is not None for row in rows):
        parts.append("* suspicious: robustsweep verify says why")
    return "; ".join(parts)


_WHY = {
    "wrong": "a check says that a number of it is not what it says: robustsweep verify",
    "targeted": "what such an attack leaves is no robust accuracy",
    "oblivious": "gradients of the undefended network: no search on this model",
    "no shared epsilon": "no epsilon above 0 is covered by all attacks of the norm",
    "one attack": "the worst case is this attack itself: its optimality would be 1 by construction",
    "incomplete": "another attack of the norm is not done",
    "worst case wrong": "a check says so: robustsweep verify",
    "nothing broken": "no attack breaks anything at these epsilons, so that there is nothing to compare",
}
"""Why there is a hole (`attacks.why`), where it does not explain itself."""


def _own(row: Mapping[str, Any]) -> int:
    return sum(epsilon > 0 for epsilon in row["own_epsilons"])


def _numbers(row: Mapping[str, Any], digits: int) -> tuple[str, str, str]:
    """Area, that of the worst case, optimality; what there is none of says why, once."""
    doubted = "*" if row["verdict"] == "suspicious" else ""
    if row["area"] is None:
        partial = f"partial {row['n']}/{row['examples']}"
        return partial if row["why"] == "partial" else row["why"], NO_VALUE, NO_VALUE
    area = f"{percent(row['area'], None, digits)}{doubted}"
    worst = percent(row["worst_case_area"], None, digits)
    return area, worst, row["why"] or f"{_share(row['optimality'], digits)}{doubted}"


def _share(value: float, digits: int) -> str:
    """In percent; 100 only where it is."""
    text = percent(value, None, digits)
    if value < 1 and text == percent(1.0, None, digits):
        return f">{percent(1 - 10.0 ** -(digits + 2), None, digits)}"
    return text


def _mean(value: float | None) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _span(epsilons: Sequence[float]) -> str:
    if not epsilons:
        return NO_VALUE
    ends = [epsilon_text(epsilons[0]), epsilon_text(epsilons[-1])]
    return ends[0] if len(epsilons) == 1 else f"{' to '.join(ends)} ({len(epsilons)})"
