"""What the rows of a cell come to: counts, distances and calls, so that tables need not read a row twice."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.witnesses import ROW_COLUMNS, WITNESSES, witnesses

MEASURED = pa.schema(
    [
        ("cell_id", pa.string()),
        ("n", pa.int64()),
        ("correct", pa.int64()),
        ("robust", pa.int64()),  # correct, and not broken
        ("successes", pa.int64()),
        ("successes_uint8", pa.int64()),
        ("mean_success_distance", pa.float64()),  # in the cell's norm, like the next
        ("median_success_distance", pa.float64()),
        # Of a minimum-norm attack, over the correct examples, whatever epsilon is; null for any other.
        ("median_nearest", pa.float64()),
        ("not_found", pa.int64()),
        ("ssim", pa.float64()),  # means over the examples that it was measured on
        ("psnr", pa.float64()),
        ("forward_calls", pa.int64()),
        ("gradient_calls", pa.int64()),
        # How many of the correct examples each flag touches.
        ("touched", pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))),
        *WITNESSES,
    ]
)
"""One row for each cell that has any."""

ATTACKS = pa.schema(
    [
        ("victim_id", pa.string()),
        ("attack_id", pa.string()),
        ("targeted", pa.bool_()),  # null where nothing was attacked, like the next
        ("minimum_norm", pa.bool_()),
        # By position: the distance of the closest adversarial image that any of its wanted cells has, in its
        # norm; infinite where none has any, -1 where the clean image is answered wrongly, NaN without rows.
        ("closest", pa.list_(pa.float32())),
    ]
)
"""One row for each attack on each victim that has rows."""

UNATTACKED = -1.0
"""What `closest` has for an example that the victim gets wrong."""

_PLAIN = (
    "cell_id",
    "position",
    "clean_correct",
    "success",
    "success_uint8",
    "ssim",
    "psnr",
    "forward_calls",
    "gradient_calls",
    "flags",
    "nearest",
    "target",
    *ROW_COLUMNS,
)


def needed_columns(norm: str) -> list[str]:
    """The columns of `workers.shards.SCHEMA` that `measure` takes for cells of a norm; and it takes
    `results.witnesses.MISPLACED`, where kept images were looked at."""
    return [*_PLAIN, norm]


def measure(rows: pa.Table, wanted: Mapping[str, int], norm: str) -> pa.Table:
    """`MEASURED` of rows with `needed_columns`, over the first so many positions of each wanted cell."""
    rows, code, names = _inside(rows, wanted)
    count = len(names)

    def total(of: NDArray[Any]) -> NDArray[np.int64]:
        """Sums by cell."""
        return np.bincount(code, weights=of, minlength=count).astype(np.int64)

    def mean(column: str) -> list[float | None]:
        values, known = _values(rows, column)
        n = total(known)
        with np.errstate(invalid="ignore"):
            sums = np.bincount(code[known], weights=values[known], minlength=count)
        return [float(sums[i] / n[i]) if n[i] else None for i in range(count)]

    def whole_total(column: str) -> pa.Array:
        """Sums by cell; null where some of it is not known: the rest would be another number than it says."""
        values, known = _values(rows, column)
        return pa.array(total(values), pa.int64(), mask=total(~known) > 0)

    correct, success = rows["clean_correct"].to_numpy(), rows["success"].to_numpy()
    distance, at_distance = _values(rows, norm)
    means, medians = _by_cell(distance[success], code[success], count)
    nearest, known = _values(rows, "nearest")
    searched = correct & known
    _, median_nearest = _by_cell(nearest[searched], code[searched], count)
    not_found = total(searched & np.isinf(nearest))
    # Of some of them only, either would be another number than it says.
    whole = (total(searched) == total(correct)) & (total(correct) > 0)
    measured = pa.table(
        {
            "cell_id": names,
            "n": np.bincount(code, minlength=count),
            "correct": total(correct),
            "robust": total(correct & ~success),
            "successes": total(success),
            "successes_uint8": total(rows["success_uint8"].to_numpy()),
            "mean_success_distance": means,
            "median_success_distance": medians,
            "median_nearest": pa.array(median_nearest, pa.float64(), mask=~whole),
            "not_found": pa.array(not_found, mask=~whole),
            "ssim": mean("ssim"),
            "psnr": mean("psnr"),
            "forward_calls": whole_total("forward_calls"),
            "gradient_calls": whole_total("gradient_calls"),
            "touched": _touched(rows, code, correct, count),
            **witnesses(rows, code, count, np.where(at_distance, distance, np.nan)),
        },
        schema=MEASURED,
    )
    return measured.filter(pc.greater(measured["n"], 0))


def summarise(rows: pa.Table, wanted: Mapping[str, int], norm: str) -> dict[str, Any]:
    """A row of `ATTACKS`, but for the ids, from the rows (as for `measure`) of one attack on one victim."""
    rows, _, _ = _inside(rows, wanted)
    position, correct = rows["position"].to_numpy(), rows["clean_correct"].to_numpy()
    distance, _ = _values(rows, norm)
    nearest, searched = _values(rows, "nearest")
    found = np.where(rows["success"].to_numpy(), distance, np.inf)
    found = np.where(searched, np.minimum(found, nearest), found)
    closest = np.full(max(wanted.values(), default=0), np.nan)
    # Right in one cell and wrong in another, as a randomised victim may be, is wrong.
    np.fmin.at(closest, position, np.where(correct, found, UNATTACKED))
    attacked = bool(correct.any())
    return {
        "targeted": bool((_values(rows, "target")[1] & correct).any()) if attacked else None,
        "minimum_norm": bool((searched & correct).any()) if attacked else None,
        "closest": closest.astype(np.float32),
    }


def _inside(rows: pa.Table, wanted: Mapping[str, int]) -> tuple[pa.Table, NDArray[np.integer], list[str]]:
    """The rows of wanted cells within their positions, which of some cells each is of, and those cells."""
    cells = rows["cell_id"].combine_chunks().dictionary_encode()
    names = cells.dictionary.to_pylist()
    limits = np.array([wanted.get(name, 0) for name in names], np.int64)
    code = cells.indices.to_numpy()
    inside = rows["position"].to_numpy() < limits[code]
    if not inside.all():
        rows, code = rows.filter(pa.array(inside)), code[inside]
    return rows, code, names


def _values(rows: pa.Table, column: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column as floats, 0 where it is null, and where it is not."""
    values = rows[column]
    if values.null_count == len(values):  # as most columns that one kind of attack alone has
        return np.zeros(len(values)), np.zeros(len(values), bool)
    known = pc.is_valid(values).to_numpy()
    return pc.fill_null(values, 0).to_numpy().astype(np.float64), known


def _by_cell(
    distance: NDArray[np.float64], code: NDArray[np.integer], count: int
) -> tuple[list[float | None], list[float | None]]:
    """Means and medians by cell; None for a cell without any."""
    order = np.lexsort((distance, code))
    distance, code = distance[order], code[order]
    ends = np.searchsorted(code, np.arange(count + 1))
    means: list[float | None] = []
    medians: list[float | None] = []
    for start, stop in pairwise(ends):
        some = distance[start:stop]
        means.append(float(some.mean()) if len(some) else None)
        medians.append(float((some[(len(some) - 1) // 2] + some[len(some) // 2]) / 2) if len(some) else None)
    return means, medians


def _touched(
    rows: pa.Table, code: NDArray[np.integer], correct: NDArray[np.bool_], count: int
) -> list[list[dict[str, Any]]]:
    found: list[dict[str, int]] = [{} for _ in range(count)]
    flags = rows["flags"]
    for row in np.flatnonzero(pc.is_valid(flags).to_numpy() & correct):
        for flag in flags[int(row)].as_py():
            cell = found[code[row]]
            cell[flag] = cell.get(flag, 0) + 1
    return [[{"key": key, "value": value} for key, value in sorted(cell.items())] for cell in found]
