"""Curves of minimum-norm attacks as a page draws them: step by step, since their distances say all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.facts import Facts
from orchestrator.report.series import percent
from orchestrator.results.steps import Steps, distances_of, nearest_of, steps
from orchestrator.results.tables import of_one_attack

_MOST = 40_000  # steps of a page
_FEWEST, _ENOUGH = 100, 1_000  # of a curve, where there are more: no eye tells a tenth of a point


def step_curves(facts: Facts) -> dict[str, Any]:
    """`curves`: the number of a row, as `report.series.series` counts them, -> its steps up to the largest
    epsilon of its table: epsilon, share and interval in percent. `within`: by how many points what is drawn
    may be too high, where there are too many steps to draw them all; 0: it is exact."""
    rows = [(table, row) for table in facts.tables for row in table.rows]
    of = {(cell["sweep"], cell["cell_id"]): cell for cell in facts.rows("cells")}
    found: dict[int, Steps] = {}
    known = None
    for number, (table, row) in enumerate(rows):
        cells = [of[row.sweep, cell] for cell in row.cell_ids] if of_one_attack(row) else []
        marks = {entry.mark for entry in row.entries if entry is not None}
        # One that is done at any epsilon has looked for the nearest image of every example.
        if row.targeted or "" not in marks or "wrong" in marks or not _minimum_norm(cells):
            continue
        known = distances_of(facts.results) if known is None else known
        if some := nearest_of(cells, known):
            found[number] = _until(steps(some), table.epsilons[-1])
    most = min(_ENOUGH, max(_FEWEST, _MOST // max(1, len(found))))
    thinned = [len(one.at) > most for one in found.values()]
    return {
        "curves": {number: _points(one, most) for number, one in found.items()},
        "within": 100 / most if any(thinned) else 0,
    }


def _minimum_norm(cells: list[dict[str, Any]]) -> bool:
    return bool(cells) and all(cell["minimum_norm"] for cell in cells)


def _until(found: Steps, edge: float) -> Steps:
    there = found.at <= edge
    return Steps(*(of[there] for of in found[:4]))


def _points(found: Steps, most: int) -> list[list[float | None]]:
    return [
        [float(f"{at:.5g}"), *(percent(float(one)) for one in ends)]
        for at, *ends in zip(*(of[_kept(found.share, most)] for of in found[:4]), strict=True)
    ]


def _kept(share: NDArray[np.float64], most: int) -> NDArray[np.bool_]:
    """Which steps of a falling share are kept: all, or those at which it passes another of `most` levels."""
    if len(share) <= most:
        return np.ones(len(share), bool)
    level = np.ceil(share * most)
    return np.append(True, level[1:] < level[:-1])
