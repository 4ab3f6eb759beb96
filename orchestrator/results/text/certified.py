"""What is certified of smoothed victims, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.results.certified import CONFIDENCE
from orchestrator.results.text.base import NO_VALUE, Columns
from orchestrator.results.text.robustness import epsilon_text, percent
from workers.unit import label


def columns(rows: Sequence[Mapping[str, Any]], digits: int = 1) -> Columns:
    """A row for each smoothed victim, training seed and epsilon: bounds from below and from above."""
    seeds = ["seed"] if len({row["seed"] for row in rows}) > 1 else []
    sweeps = ["sweep"] if len({row["sweep"] for row in rows}) > 1 else []
    names = [
        *(*sweeps, "dataset", "model", "defence", *seeds, "L2 epsilon", "clean", "certified", "at least"),
        *("under attack", "abstained", "n"),
    ]
    cells = [
        [
            *(row[name] for name in sweeps),
            row["dataset"],
            label(row["model"], row["model_options"]),
            row["defence"],
            *(row[name] for name in seeds),
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
    words = {"sweep", "dataset", "model", "defence"}
    return Columns(names, cells, [name not in words for name in names])


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the bounds are of, and how sure they are."""
    taken = sorted({(row["n0"], row["draws"], row["alpha"]) for row in rows})
    draws = " or ".join(
        f"{n0:,} + {draws:,} draws, each certificate wrong with a probability of at most {alpha:g}"
        for n0, draws, alpha in taken
    )
    parts = [
        "certified: no image within epsilon is answered wrongly, by Cohen et al. (2019): a lower bound",
        draws,
        f"at least: less as many as may be wrong, with a confidence of {100 * CONFIDENCE:.0f}%",
        "under attack: what all L2 attacks together have left of the same examples: an upper bound",
        "clean: most of 20 draws are right; epsilon on the [0, 1] scale",
    ]
    if any(row["verdict"] for row in rows):
        parts.append("wrong: an attack succeeds where certificates say that none can: robustsweep verify")
    return "; ".join(parts)


def _certified(row: Mapping[str, Any], value: float | None, digits: int) -> str:
    if row["status"] != "done":
        return f"partial {row['n']}/{row['examples']}" if row["status"] == "partial" else row["status"]
    return "wrong" if row["verdict"] == "wrong" else percent(value, None, digits) or NO_VALUE
