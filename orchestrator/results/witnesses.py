"""What the rows of a cell testify beside its numbers: which examples were broken, and what cannot be true.

A bit an example, so that two attacks are compared example by example without reading a row again.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workers.metrics import within
from workers.norms import NORMS

WITNESSES = (
    # Bit p, most significant first: the victim is right at position p of the evaluation order, and there
    # the attack succeeded. As long as the positions go.
    pa.field("right_at", pa.binary()),
    pa.field("broken_at", pa.binary()),
    pa.field("attacked_at", pa.binary()),  # likewise: the attack was run there
    pa.field("contradicted", pa.int64()),  # successes that their own row contradicts
    pa.field("misplaced", pa.int64()),  # kept images that cannot be what their rows say
)
"""The columns of `results.measured.MEASURED` that checks stand on."""

ROW_COLUMNS = ("epsilon",)
IMAGE_COLUMNS = ("success", "image", "image_shape")
MISPLACED = "misplaced"


def bits(values: NDArray[np.bool_]) -> bytes:
    return np.packbits(values).tobytes()


def unpacked(packed: bytes | None) -> NDArray[np.bool_]:
    """The bits of `right_at` or another; behind those that were meant there may be some zeros."""
    return np.unpackbits(np.frombuffer(packed or b"", np.uint8)).astype(bool)


def sized(values: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """So many bits: what is missing is false."""
    found = np.zeros(size, bool)  # np.pad takes ten times as long, and this is asked of every cell
    found[: len(values)] = values[:size]
    return found


def witnesses(
    rows: pa.Table, code: NDArray[np.integer], count: int, distance: NDArray[np.float64]
) -> dict[str, list[bytes] | NDArray[np.int64]]:
    """`WITNESSES` by cell; `code` is each row's, below `count`, `distance` in its norm, NaN where null."""
    right, success = rows["clean_correct"].to_numpy(), rows["success"].to_numpy()
    position = rows["position"].to_numpy()
    inside = (distance >= 0) & within(distance, rows["epsilon"].to_numpy())
    contradicted = success & ~(inside & right)
    misplaced = rows[MISPLACED].to_numpy() if MISPLACED in rows.column_names else np.zeros(len(code))
    order = np.argsort(code, kind="stable")
    ends = np.searchsorted(code[order], np.arange(count + 1))
    right_at: list[bytes] = []
    broken_at: list[bytes] = []
    attacked_at: list[bytes] = []
    known = ~np.isnan(distance)  # infinite where an attack failed, and null where there was none
    for start, stop in pairwise(ends):
        here = order[start:stop]
        length = int(position[here].max()) + 1 if len(here) else 0
        for of, into in ((right, right_at), (success, broken_at), (known, attacked_at)):
            flat = np.zeros(length, bool)
            flat[position[here]] = of[here]
            into.append(bits(flat))
    return {
        "right_at": right_at,
        "broken_at": broken_at,
        "attacked_at": attacked_at,
        "contradicted": np.bincount(code, weights=contradicted, minlength=count).astype(np.int64),
        "misplaced": np.bincount(code, weights=misplaced, minlength=count).astype(np.int64),
    }


def with_misplaced(rows: pa.Table, norm: str, of: NDArray[np.integer] | None = None) -> pa.Table:
    """Rows of one attack, their kept images replaced by the column `MISPLACED`: which cannot be true.

    One that is not of its shape, not finite or not in [0, 1]; and of two successes on the same example,
    those that are farther from each other than both are from the clean image together, as no two images
    can be. The clean image itself is not needed for that. `of`: which shard each row is of, where they are
    several; images are held against those of their own.
    """
    wrong = np.zeros(rows.num_rows, bool)
    places = np.flatnonzero(pc.is_valid(rows["image"]).to_numpy())
    kept: dict[tuple[int, int], list[tuple[int, NDArray[np.float32], float]]] = defaultdict(list)
    for row in places.tolist():
        data, shape = rows["image"][row].as_py(), rows["image_shape"][row].as_py()
        image = _image(data, shape)
        if image is None:
            wrong[row] = True
        elif rows["success"][row].as_py() and (distance := rows[norm][row].as_py()) is not None:
            shard = 0 if of is None else int(of[row])
            kept[shard, rows["position"][row].as_py()].append((row, image, distance))
    for found in kept.values():
        for (one, first, near), (other, second, far) in pairwise(found):
            apart = float(NORMS[norm].distance(first, second)[0])
            if not within(apart, near + far):
                wrong[[one, other]] = True
    return rows.drop_columns(["image", "image_shape"]).append_column(MISPLACED, pa.array(wrong))


def _image(data: bytes, shape: list[int] | None) -> NDArray[np.float32] | None:
    """(1, H, W, C) float32; None for what is no image in [0, 1]."""
    if not shape or len(shape) != 3 or len(data) != 4 * int(np.prod(shape)):
        return None
    image = np.frombuffer(data, np.float32).reshape(1, *shape)
    return image if ((image >= 0) & (image <= 1)).all() else None
