"""What is certified of smoothed victims, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from orchestrator.results.certified import CONFIDENCE
from orchestrator.results.display import epsilon_text
from orchestrator.results.text.base import NO_VALUE, Columns, constant
from orchestrator.results.text.robustness import percent

_LABELS = ("sweep", "dataset", "model", "defence", "seed")


def columns(rows: Sequence[Mapping[str, Any]], digits: int = 1, *, whole: bool = False) -> Columns:
    """A row for each smoothed victim, training seed and epsilon: bounds from below and from above. Labels
    that are the same in every row are left to `caption`, unless `whole`."""
    labels = [name for name in _LABELS if whole or name not in constant(_LABELS, rows)]
    names = [*labels, "L2 epsilon", "clean", "certified", "at least", "under attack", "abstained", "n"]
    cells = [
        [
            *(row[name] for name in labels),
            epsilon_text(row["epsilon"]),
            percent(row["clean_accuracy"], None, digits),
            _certified(row, row["certified_accuracy"], digits),
            _certified(row, row["certified_at_least"], digits),
            percent(row["robust_accuracy"], None, digits),
            f"{row['abstained']:,}",
            f"{row['n']:,}",
        ]
        for row in rows
    ]
    numeric = [*(name == "seed" for name in labels), *[True] * (len(names) - len(labels))]
    return Columns(names, cells, numeric, breaks=True)


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the bounds are of, and how sure they are."""
    taken = {(row["n0"], row["draws"], row["alpha"]) for row in rows}
    draws = [
        f"{n0:,} + {draws:,} draws, each wrong with a probability of at most {alpha:g}"
        for n0, draws, alpha in sorted(taken)
    ]
    parts = [
        *(f"{name} {rows[0][name]}" for name in constant(_LABELS, rows) if name not in ("sweep", "seed")),
        "certified: answered rightly on every image within epsilon, by Cohen et al. (2019), "
        f"{' or '.join(draws)}: a lower bound",
        *reach(rows),
        f"at least: less as many certificates as may be wrong, with a confidence of {100 * CONFIDENCE:.0f}%",
        "under attack: what all L2 attacks together have left of the same examples: an upper bound",
        "clean: most of 20 draws are right; epsilon on the [0, 1] scale",
    ]
    if any(row["verdict"] for row in rows):
        parts.append("wrong: an attack succeeds where certificates say that none can: robustsweep verify")
    return "; ".join(parts)


def reach(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far a certificate goes where all draws agree: farther, none can be had by so many."""
    taken = sorted({(row["sigma"], row["draws"], row["alpha"]) for row in rows})
    reach = [
        f"{sigma * NormalDist().inv_cdf(alpha ** (1 / draws)):.3g} (sigma {sigma:g}, {draws:,} draws)"
        for sigma, draws, alpha in taken
        if alpha ** (1 / draws) > 0.5
    ]
    if not reach:
        return ["so few draws certify nothing: 0% is by construction"]
    return [f"radii are at most {' or '.join(reach)}: beyond that 0% is by construction"]


def _certified(row: Mapping[str, Any], value: float | None, digits: int) -> str:
    if row["status"] != "done":
        return f"partial {row['n']}/{row['examples']}" if row["status"] == "partial" else row["status"]
    return "wrong" if row["verdict"] == "wrong" else percent(value, None, digits) or NO_VALUE
