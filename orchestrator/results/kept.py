"""Images that cells have kept: which of them are shown, and as what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.results.schemas import Results
from workers.datasets.base import scaled

_COLUMNS = (
    *("position", "example_index", "label", "clean_label", "clean_confidence", "adv_label"),
    *("adv_confidence", "success", "linf", "l2", "l0", "epsilon", "image", "image_shape", "clean_image"),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Some of the images of a cell, in the evaluation order."""

    rows: pa.Table  # columns of `workers.shards.SCHEMA`
    shape: tuple[int, int, int] | None  # (H, W, C); None: none is kept of the cell at all

    @property
    def adversarial(self) -> NDArray[np.float32]:
        """(N, H, W, C) in [0, 1]. UserError for what is no such image."""
        return self._stack("image")

    @property
    def clean(self) -> NDArray[np.float32] | None:
        """(N, H, W, C) in [0, 1]; None where a shard of an earlier version has kept none with its images."""
        return None if self.rows["clean_image"].null_count else self._stack("clean_image")

    def _stack(self, column: str) -> NDArray[np.float32]:
        assert self.shape is not None
        images = [self._image(data) for data in self.rows[column].to_pylist()]
        return np.stack(images) if images else np.empty((0, *self.shape), np.float32)

    def _image(self, data: bytes) -> NDArray[np.float32]:
        size = int(np.prod(self.shape or ()))
        kind = {size: np.uint8, 4 * size: np.float32}.get(len(data))
        if kind is None:
            raise UserError(
                f"a kept image has {len(data)} bytes; {size} or {4 * size} are those of its shape"
            )
        return np.asarray(scaled(np.frombuffer(data, kind).reshape(self.shape)), np.float32)


def kept_images(results: Results, cell_id: str, *, broken: bool | None, n: int) -> Kept:
    """The first `n` images of a cell that the attack succeeded on, or of others (`broken` False), or of all
    that were attacked (None): fewer where fewer of the first are kept.

    Never one from further behind in place of one that is not kept: whoever looks at the first is not to see
    a choice.
    """
    places = dict(
        zip(results.wanted["cell_id"].to_pylist(), results.wanted["examples"].to_pylist(), strict=True)
    )
    of_cell = (pc.field("cell_id") == cell_id) & pc.field("clean_correct")
    if (examples := places.get(cell_id)) is not None:
        of_cell &= pc.field("position") < examples
    # Pixels are read of what is shown alone.
    found = _scan(results.examples, ["position", "success", "image_shape"], of_cell)
    shapes = [shape for shape in found["image_shape"].to_pylist() if shape]
    if not shapes:
        return Kept(pa.table({name: [] for name in _COLUMNS}), None)
    if broken is not None:
        found = found.filter(pc.equal(found["success"], broken))
    missing = pc.index(pc.is_null(found["image_shape"]), True).as_py()
    first = found["position"].slice(0, min(n, missing if missing >= 0 else n))
    rows = _scan(
        results.examples, list(_COLUMNS), of_cell & pc.field("position").isin(first.combine_chunks())
    )
    height, width, channels = shapes[0]
    return Kept(rows, (height, width, channels))


def _scan(examples: pads.Dataset, columns: list[str], which: pc.Expression) -> pa.Table:
    return examples.to_table(columns=columns, filter=which).sort_by("position")


def class_names(results: Results, victim_id: str) -> tuple[str, ...]:
    """What the classes that a victim tells apart are called, in the order of labels; empty: nobody says."""
    place = pc.index(results.victims["victim_id"], victim_id).as_py()
    return tuple(results.victims["class_names"][place].as_py() or ()) if place >= 0 else ()
