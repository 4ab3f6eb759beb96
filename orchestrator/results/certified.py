"""What is certified of smoothed victims, at each epsilon, and how it stands to what attacks have found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.reading import read_rows
from orchestrator.results.schemas import VICTIM_COLUMNS, WANTED, Results
from workers.statistics import binomial_tail

CONFIDENCE = 0.95

NOT_CERTIFIED = -1.0
"""What a radius is where the smoothed victim abstains, or is certified to be wrong."""

BOUNDS = pa.schema(
    [
        ("cell_id", pa.string()),
        *(WANTED.field(name) for name in (*VICTIM_COLUMNS, "sigma", "n0", "draws", "alpha")),
        ("epsilon", pa.float64()),
        ("n", pa.int32()),  # examples that have a certificate
        ("examples", pa.int32()),  # wanted
        ("right", pa.int32()),  # certified to be answered rightly on the clean image, at whatever radius
        ("wrong", pa.int32()),  # certified to be answered wrongly there
        ("abstained", pa.int32()),
        ("certified", pa.int32()),  # answered rightly on every image within epsilon, by their certificates
        ("mistaken", pa.int32()),  # so many of these certificates may be wrong, at `CONFIDENCE`
    ]
)
"""One row for each smoothed victim and each L2 epsilon of the grid, 0 among them in any case."""


def radii_of(results: Results) -> dict[str, NDArray[np.float64]]:
    """By cell id, the radius (P,) within which each position is answered rightly: `NOT_CERTIFIED` where that
    is nowhere, NaN without a certificate. Only of wanted cells, over the examples wanted."""
    wanted = dict(
        zip(*(results.certificates[name].to_pylist() for name in ("cell_id", "examples")), strict=True)
    )
    found = {cell: np.full(examples, np.nan) for cell, examples in wanted.items()}
    for cell, position, right, radius in _rows(results, wanted):
        found[cell][position] = radius if right and radius is not None else NOT_CERTIFIED
    return found


def bounds(results: Results) -> pa.Table:
    """`BOUNDS` of the wanted certificates."""
    if not results.certificates.num_rows:
        return BOUNDS.empty_table()
    wanted = {cell["cell_id"]: cell for cell in results.certificates.to_pylist()}
    said: dict[str, dict[str, int]] = {
        cell: {"n": 0, "right": 0, "wrong": 0, "abstained": 0} for cell in wanted
    }
    for cell, _, right, radius in _rows(results, {name: one["examples"] for name, one in wanted.items()}):
        said[cell]["n"] += 1
        said[cell]["abstained" if radius is None else "right" if right else "wrong"] += 1
    radii = radii_of(results)
    rows = []
    for name, cell in wanted.items():
        for epsilon in _epsilons(results, cell):
            # The theorem is of distances below the radius.
            certified = int((radii[name] > epsilon).sum())
            rows.append(
                {
                    **{column: cell[column] for column in BOUNDS.names if column in cell},
                    **said[name],
                    "epsilon": epsilon,
                    "certified": certified,
                    "mistaken": min(certified, mistaken(said[name]["n"], cell["alpha"])),
                }
            )
    return pa.Table.from_pylist(rows, schema=BOUNDS)


def mistaken(examples: int, alpha: float) -> int:
    """How many of the certificates of so many examples are wrong at the most, at `CONFIDENCE`, where each
    example gets a wrong one with a probability of at most alpha."""
    return next(
        wrong for wrong in range(examples + 1) if binomial_tail(wrong + 1, examples, alpha) <= 1 - CONFIDENCE
    )


def _epsilons(results: Results, cell: Mapping[str, Any]) -> list[float]:
    """0, and those of L2 attacks on the dataset."""
    columns = (results.wanted[name].to_pylist() for name in ("dataset", "norm", "epsilon"))
    asked = {
        epsilon
        for dataset, norm, epsilon in zip(*columns, strict=True)
        if (dataset, norm) == (cell["dataset"], "l2")
    }
    return sorted({0.0, *asked})


def _rows(results: Results, wanted: Mapping[str, int]) -> list[tuple[str, int, bool, float | None]]:
    """Cell, position, whether the answer is the label, and radius, of wanted cells."""
    if not wanted:
        return []
    rows = read_rows(results.certified, ["cell_id", "position", "label", "answer", "radius"])
    columns = (rows[name].to_pylist() for name in rows.column_names)
    return [
        (cell, position, answer == label, radius)
        for cell, position, label, answer, radius in zip(*columns, strict=True)
        if position < wanted.get(cell, 0)
    ]
