"""Kept images as PNG files, and a table that says what each is."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.results.chosen import Chosen, chosen, no_epsilon
from orchestrator.results.export import replacing
from orchestrator.results.kept import Kept, class_names, kept_images
from orchestrator.results.schemas import Results
from orchestrator.results.text import text_format
from workers.layout import is_name
from workers.norms import NORMS
from workers.rounding import rounded_within

TABLE = "images.csv"
"""What the table is called, beside the folders of images."""

_AT_ONCE = 32  # cells whose images are held

_CHANNELS = (1, 3, 4)

IMAGES = pa.schema(
    [
        *((name, pa.string()) for name in ("sweep", "cell_id", "model", "model_options", "recipe")),
        *((name, pa.string()) for name in ("dataset", "defence")),
        ("seed", pa.int32()),
        *((name, pa.string()) for name in ("attack", "attack_options", "norm")),
        ("adaptive", pa.bool_()),
        ("targeted", pa.bool_()),
        ("epsilon", pa.float64()),
        ("verdict", pa.string()),
        ("position", pa.int32()),
        ("example_index", pa.int32()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("clean_label", pa.int32()),
        ("clean_name", pa.string()),
        ("clean_confidence", pa.float32()),
        ("adv_label", pa.int32()),
        ("adv_name", pa.string()),
        ("adv_confidence", pa.float32()),
        ("success", pa.bool_()),
        ("success_uint8", pa.bool_()),  # of the very image in the file
        *((name, pa.float32()) for name in ("linf", "l2", "l0")),
        ("clean_file", pa.string()),  # below the folder
        ("adversarial_file", pa.string()),
    ]
)
"""A row for each adversarial image: the words of the views `cells` and `examples`."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    images: int  # adversarial ones
    cells: int


def export_images(
    results: Sequence[Results],
    wanted: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    epsilon: float | None = None,
) -> Exported:
    """Write the kept images of the cells that are asked for to `folder`: `<cell id>/<position>.png` and
    `<position>-clean.png`, and `images.csv`. Of each cell those that were broken, and its first ones.

    A PNG has 8 bits a channel: an adversarial image is rounded so that it stays within epsilon, which is what
    `success_uint8` speaks of. UserError where nothing is kept, or nothing can be written.
    """
    found = chosen(results, wanted)
    cells = list(dict.fromkeys(_cells(found, epsilon)))
    if not cells:
        raise no_epsilon(found.tables, epsilon or 0.0)
    rows: list[dict[str, Any]] = []
    several = len(results) > 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in results:
            own = [cell for sweep, cell in cells if sweep == one.sweep]
            for first in range(0, len(own), _AT_ONCE):
                for cell, kept in _all_kept(one, own[first : first + _AT_ONCE]):
                    if not is_name(cell):
                        raise UserError(f"{cell!a} is no name of a cell, and no folder is made of it")
                    values = found.cells[one.sweep, cell]
                    place = Path(one.sweep.replace("/", "_"), cell) if several else Path(cell)
                    rows += _written(folder, place, kept, values, class_names(one, values["victim_id"]))
    except OSError as error:
        raise UserError(f"--to: cannot write to {folder}: {error.strerror or error}") from None
    if not rows:
        raise UserError("no image of these cells is kept: `keep: N` in a grid keeps the first N of each cell")
    with replacing(str(folder / TABLE)) as stream:
        table = pa.Table.from_pylist(rows, schema=IMAGES)
        stream.write(text_format("csv").table(table).encode())
    return Exported(len(rows), len({(row["sweep"], row["cell_id"]) for row in rows}))


def _cells(found: Chosen, epsilon: float | None) -> Iterator[tuple[str, str]]:
    for table in found.tables:
        for row in table.rows:
            for cell in found.cells_of(row):
                if epsilon is None or abs(cell["epsilon"] - epsilon) <= 1e-9:
                    yield row.sweep, cell["cell_id"]


def _all_kept(results: Results, cells: Sequence[str]) -> Iterator[tuple[str, Kept]]:
    """Of each cell its first broken images and its first others, in the evaluation order."""
    broken, others = (kept_images(results, cells, broken=which) for which in (True, False))
    for cell in cells:
        if cell in broken:
            rows = pa.concat_tables([broken[cell].rows, others[cell].rows]).sort_by("position")
            yield cell, Kept(rows, broken[cell].shape)


def _written(
    folder: Path, place: Path, kept: Kept, cell: Mapping[str, Any], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Write the images of a cell; what the table says of them."""
    if not kept.rows.num_rows:
        return
    (folder / place).mkdir(parents=True, exist_ok=True)
    adversarial, clean = kept.adversarial, kept.clean
    shown = _rounded(kept, adversarial, clean, cell)
    for i, row in enumerate(kept.rows.to_pylist()):
        file = place / f"{row['position']:06}.png"
        clean_file = place / f"{row['position']:06}-clean.png"
        (folder / file).write_bytes(png(shown[i]))
        (folder / clean_file).write_bytes(png(clean[i]))
        yield {
            **{name: cell[name] for name in IMAGES.names if name in cell},
            **{name: row[name] for name in IMAGES.names if name in row},
            "label_name": _name(row["label"], names),
            "clean_name": _name(row["clean_label"], names),
            "adv_name": _name(row["adv_label"], names),
            "clean_file": clean_file.as_posix(),
            "adversarial_file": file.as_posix(),
        }


def _rounded(
    kept: Kept,
    adversarial: NDArray[np.float32],
    clean: NDArray[np.float32],
    cell: Mapping[str, Any],
) -> NDArray[np.float32]:
    """As `success_uint8` was judged, where there is a success."""
    shown = adversarial.copy()
    success = np.flatnonzero(kept.rows["success"].to_numpy(zero_copy_only=False))
    if len(success):
        norm = NORMS[cell["norm"]]
        shown[success], _ = rounded_within(adversarial[success], clean[success], cell["epsilon"], norm)
    return shown


def _name(label: int | None, names: Sequence[str]) -> str | None:
    return names[label] if label is not None and label < len(names) else None


def png(image: NDArray[np.float32]) -> bytes:
    """An image (H, W, C) in [0, 1], with 1, 3 or 4 channels, as a PNG of 8 bits a channel."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    sink = io.BytesIO()
    if image.shape[2] not in _CHANNELS:
        raise UserError(f"an image of {image.shape[2]} channels is no PNG; 1, 3 and 4 are")
    Image.fromarray(levels[..., 0] if image.shape[2] == 1 else levels).save(sink, format="PNG")
    return sink.getvalue()
