"""Images that cells have kept: which of them are shown, and as what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.results.reading import read_rows
from orchestrator.results.schemas import Results
from workers.datasets.base import scaled
from workers.norms import NORMS

_COLUMNS = (
    *("cell_id", "position", "example_index", "label", "clean_label", "clean_confidence"),
    *("adv_label", "adv_confidence", "success", "success_uint8", *NORMS, "l0", "image", "image_shape"),
    "clean_image",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Some of the images of a cell, in the evaluation order."""

    rows: pa.Table  # columns of `workers.shards.SCHEMA`
    shape: tuple[int, int, int]  # (H, W, C)

    @property
    def adversarial(self) -> NDArray[np.float32]:
        """(N, H, W, C) in [0, 1]. UserError for what is no such image."""
        return self._stack("image")

    @property
    def clean(self) -> NDArray[np.float32]:
        """(N, H, W, C) in [0, 1]. UserError for what is no such image."""
        return self._stack("clean_image")

    def _stack(self, column: str) -> NDArray[np.float32]:
        images = [self._image(data) for data in self.rows[column].to_pylist()]
        return np.stack(images) if images else np.empty((0, *self.shape), np.float32)

    def _image(self, data: bytes | None) -> NDArray[np.float32]:
        if data is None:
            raise UserError("images that were kept without their clean ones are not shown")
        size = int(np.prod(self.shape))
        kind = {size: np.uint8, 4 * size: np.float32}.get(len(data))
        if kind is None:
            raise UserError(f"a kept image has {len(data)} bytes; its shape takes {size} or {4 * size}")
        return np.asarray(scaled(np.frombuffer(data, kind).reshape(self.shape)), np.float32)


def kept_images(
    results: Results, cells: Collection[str], *, broken: bool | None, n: int | None = None
) -> dict[str, Kept]:
    """Of each of some cells that has kept any, the first `n` images (None: as many as there are) that the
    attack succeeded on, or of others (`broken` False), or of all that were attacked (None).

    They are fewer where fewer of the first are kept: never is one from further behind in place of one that is
    not. Whoever looks at the first is not to see a choice.
    """
    of_cells = pc.field("cell_id").isin(list(cells)) & pc.field("clean_correct")
    # Pixels are read of what is shown alone.
    columns = ["cell_id", "position", "success", "image_shape"]
    found = read_rows(results.examples, columns, of_cells).sort_by("position")
    examples = dict(
        zip(results.wanted["cell_id"].to_pylist(), results.wanted["examples"].to_pylist(), strict=True)
    )
    shapes: dict[str, tuple[int, int, int]] = {}
    first: dict[str, list[int]] = {}
    ended: set[str] = set()
    for cell, position, success, shape in zip(*(found[name].to_pylist() for name in columns), strict=True):
        if position >= examples.get(cell, 0):
            continue
        if shape:
            height, width, channels = shape
            shapes[cell] = height, width, channels
        if broken not in (None, success) or cell in ended:
            continue
        if not shape or (n is not None and len(first.get(cell, ())) == n):
            ended.add(cell)
        else:
            first.setdefault(cell, []).append(position)
    positions = sorted({position for some in first.values() for position in some})
    which = of_cells & pc.field("position").isin(positions) & pc.field("image").is_valid()
    rows = read_rows(results.examples, _COLUMNS, which).sort_by("position")
    return {cell: Kept(_of(rows, cell, first.get(cell, [])), shape) for cell, shape in shapes.items()}


def _of(rows: pa.Table, cell: str, positions: list[int]) -> pa.Table:
    chosen = pc.is_in(rows["position"], value_set=pa.array(positions, rows["position"].type))
    return rows.filter(pc.and_(pc.equal(rows["cell_id"], cell), chosen))


def class_names(results: Results, victim_id: str) -> tuple[str, ...]:
    """What the classes that a victim tells apart are called, in the order of labels; empty: nobody says."""
    place = pc.index(results.victims["victim_id"], victim_id).as_py()
    return tuple(results.victims["class_names"][place].as_py() or ()) if place >= 0 else ()
