"""A comparison, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.results.compare import Comparison
from orchestrator.results.display import epsilon_text
from orchestrator.results.require import Required
from orchestrator.results.text.base import NO_VALUE, Columns
from orchestrator.results.text.robustness import percent
from workers.unit import label

_SHOWN = 10


def columns(comparison: Comparison) -> Columns:
    """What was compared, shares in percent, the difference in points with its interval; where nothing was,
    what could not be. `summary` has the number of the others."""
    rows = [
        {**row, **texts._asdict()}
        for row, texts in zip(comparison.rows.to_pylist(), comparison.texts, strict=True)
    ]
    rows = [row for row in rows if row["result"]] or rows
    seeds = ["seed"] if len({row["seed"] for row in rows}) > 1 else []
    labels = ["dataset", "norm", "epsilon", "model", "defence", *seeds, "attack"]
    names = [*labels, "n", "first", "second", "difference", "p", "result"]
    cells = [
        [
            *(epsilon_text(row[name]) if name == "epsilon" else row[name] for name in labels),
            row["n"],
            percent(row["first"], None),
            percent(row["second"], None),
            difference(row["difference"], row["low"], row["high"]),
            NO_VALUE if row["adjusted"] is None else f"{row['adjusted']:.2g}",
            (row["result"] or "not compared") + (f" ({row['note']})" if row["note"] else ""),
        ]
        for row in rows
    ]
    numbers = {"epsilon", "seed", "n", "first", "second", "difference", "p"}
    return Columns(names, cells, [name in numbers for name in names])


def summary(comparison: Comparison) -> str:
    """What it comes to, in a sentence or two."""
    counts = {result: comparison.count(result) for result in ("better", "worse", "tied", "doubtful", None)}
    n = comparison.rows.num_rows - counts[None]
    parts = [f"{counts[result]} {result}" for result in ("better", "worse", "tied")]
    parts += [f"{counts['doubtful']} doubtful"] if counts["doubtful"] else []
    text = (
        f"{comparison.second} against {comparison.first}: {', '.join(parts)} of {n} "
        "(exact McNemar test on the same examples, Holm's correction, 5%)"
    )
    if counts[None]:
        why = Counter(row["note"] for row in comparison.rows.to_pylist() if not row["result"])
        reasons = "; ".join(f"{note} ({count})" for note, count in why.most_common())
        text += f"; {counts[None]} not compared: {reasons}"
    tied = [row for row in comparison.rows.to_pylist() if row["result"] == "tied"]
    if tied and (least := min(row["low"] for row in tied)) < 0:
        text += f"; where tied, it may still be up to {-100 * least:.1f} points worse"
    return text


def unmet(required: Required) -> Iterator[str]:
    """A line for each row that does not meet a requirement, of the first few; nothing where all do."""
    if not required.unmet:
        return
    yield f"not met by {len(required.unmet):,} of {required.rows:,} rows: {required.text}"
    for row in required.unmet[:_SHOWN]:
        value = NO_VALUE if row["robust_accuracy"] is None else f"{row['robust_accuracy']:.4g}"
        state = row["status"] if "status" in row else "done" if row["complete"] else "incomplete"
        said = ", ".join(filter(None, [state if state != "done" else "", *row["checks"]]))
        yield f"  {row['sweep']}: {row['place']}: robust accuracy {label(value, said)}"
    if len(required.unmet) > _SHOWN:
        yield f"  and {len(required.unmet) - _SHOWN:,} more"


def difference(value: float | None, low: float | None, high: float | None) -> str:
    """In points, with its interval: "+26.0 [+21.2, +30.6]"."""
    if value is None or low is None or high is None:
        return NO_VALUE
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
