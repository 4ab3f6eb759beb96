"""How good an attack is on a victim: the area under its robustness curve, beside that of the worst case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.measured import UNATTACKED
from orchestrator.results.schemas import WANTED, Measured
from orchestrator.results.worst_case import Search, searches
from workers import metrics

QUALITY = pa.schema(
    [
        *(WANTED.field(name) for name in ("victim_id", "attack_id", "norm")),
        ("attacks", pa.list_(pa.string())),  # of that norm on that victim, by their labels
        ("epsilons", pa.list_(pa.float64())),  # above 0, ascending: those that all of these cover
        ("clean_accuracy", pa.float64()),
        ("area", pa.float64()),  # this and the next two in [0, 1]; null: see `why`
        ("worst_case_area", pa.float64()),
        ("optimality", pa.float64()),
        ("why", pa.string()),  # there is no optimality, or no area either; an empty text: there are both
    ]
)
"""One row for each adaptive, untargeted attack on each victim."""


def quality(wanted: pa.Table, measured: Measured, worst: pa.Table) -> pa.Table:
    """`QUALITY`, from `schemas.WANTED`, what its rows come to, and `worst_case.WORST_CASES` of it.

    The curve of an attack goes from the clean accuracy at 0 through its robust accuracy at every epsilon that
    all attacks of its norm on the victim cover, straight in between; its area is divided by the largest of
    these. A minimum-norm attack covers every epsilon: at one that it has no cell at, its distances tell.

    Optimality is that of AttackBench (Cinà et al., 2025, arXiv:2404.19460): what the attack takes off the
    area that the clean accuracy would have at all epsilons, as a share of what the worst case takes off.
    """
    known = {
        cell: (n, correct, robust)
        for cell, n, correct, robust in zip(
            *(measured.cells[name].to_pylist() for name in ("cell_id", "n", "correct", "robust")), strict=True
        )
    }
    names = ("victim_id", "norm", "epsilon", "complete", "robust")
    points = {
        (victim, norm, epsilon): robust if complete else None
        for victim, norm, epsilon, complete, robust in zip(
            *(worst[name].to_pylist() for name in names), strict=True
        )
    }
    rows = []
    for victim, examples, found in searches(wanted, measured.attacks):
        place = victim["victim_id"], victim["norm"]
        epsilons = shared(found)
        together = [points[*place, epsilon] for epsilon in epsilons]
        for search in found:
            row: dict[str, Any] = {
                "victim_id": place[0],
                "attack_id": search.attack_id,
                "norm": place[1],
                "attacks": sorted(each.label for each in found),
                "epsilons": epsilons,
            }
            rows.append({**row, **_measured(search, epsilons, examples, known, together, len(found))})
    return pa.Table.from_pylist(rows, schema=QUALITY)


def shared(attacks: Sequence[Search]) -> list[float]:
    """The epsilons above 0, ascending, that all of some attacks cover, of those that any is wanted at."""
    fixed = [set(attack.cells) for attack in attacks if not attack.minimum_norm]
    every = set[float]().union(*(attack.cells for attack in attacks))
    return sorted(epsilon for epsilon in every.intersection(*fixed) if epsilon > 0)


def area(epsilons: Sequence[float], clean: float, robust: Sequence[float]) -> float:
    """Under the curve from `clean` at 0 through `robust` at `epsilons` (ascending, above 0), straight in
    between, divided by the last of these."""
    # No more than that of the clean accuracy throughout, whatever rounding makes of it.
    return min(clean, float(np.trapezoid([clean, *robust], [0.0, *epsilons]) / epsilons[-1]))


def optimality(epsilons: Sequence[float], clean: int, robust: Sequence[int], worst: Sequence[int]) -> float:
    """Of counts of examples, each `worst` at most its `robust`, and that at most `clean`: in [0, 1], and 1
    where `robust` is `worst` throughout. NaN where `worst` is `clean` throughout: there is nothing to share.
    """
    lacking = [0, *(one - least for one, least in zip(robust, worst, strict=True))]
    taken = [0, *(clean - least for least in worst)]
    if not any(taken):
        return float("nan")
    at = [0.0, *epsilons]
    return max(0.0, 1.0 - float(np.trapezoid(lacking, at) / np.trapezoid(taken, at)))


def _measured(
    search: Search,
    epsilons: Sequence[float],
    examples: int,
    known: Mapping[str, tuple[int, int, int]],
    worst: Sequence[int | None],
    attacks: int,
) -> dict[str, Any]:
    """The numbers of one attack, and why there are not all of them."""
    if not epsilons:
        return {"why": "no shared epsilon"}
    curve = [_robust(search, epsilon, examples, known) for epsilon in epsilons]
    # A randomised victim may be right in one cell and not in another.
    clean = max((known[cell][1] for cell in search.cells.values() if cell in known), default=0)
    robust = [count for count in curve if count is not None]
    if len(robust) < len(curve):
        return {"why": "partial"}
    found = {
        "clean_accuracy": clean / examples,
        "area": area(epsilons, clean / examples, [count / examples for count in robust]),
    }
    if attacks < 2:
        return {**found, "why": "one attack"}
    together = [count for count in worst if count is not None]
    if len(together) < len(worst):
        return {**found, "why": "incomplete"}
    share = optimality(epsilons, clean, robust, together)
    found["worst_case_area"] = area(epsilons, clean / examples, [count / examples for count in together])
    return (
        {**found, "why": "nothing broken"} if np.isnan(share) else {**found, "optimality": share, "why": ""}
    )


def _robust(
    search: Search, epsilon: float, examples: int, known: Mapping[str, tuple[int, int, int]]
) -> int | None:
    """How many examples the attack leaves at an epsilon; None until it has seen all of them."""
    if (cell := search.cells.get(epsilon)) is not None:
        n, _, robust = known.get(cell, (0, 0, 0))
        return robust if n == examples else None
    if search.closest is None:
        return None
    closest: NDArray[np.float32] = search.closest[:examples]
    if len(closest) < examples or np.isnan(closest).any():
        return None
    return int(((closest != UNATTACKED) & ~metrics.within(closest, epsilon)).sum())
