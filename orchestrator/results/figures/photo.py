"""Photographs before and after an attack, a row for each epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.figures.gallery import answer, change, shortened
from orchestrator.results.figures.page import Drawing, wrapped
from orchestrator.results.figures.sheet import Sheet
from orchestrator.results.figures.style import COLUMN, FONT_SIZES

_EDGE, _GAP, _TEXT = 0.06, 0.05, 0.26  # inches: at the sides, between images, of what is said below one


@dataclass(frozen=True, slots=True)
class Row:
    """A photograph at one epsilon."""

    epsilon: str  # as a person reads it
    image: NDArray[np.float32]  # (H, W, C) in [0, 1]
    after: tuple[int, float]  # a class, and its confidence
    distance: str


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph and what became of it."""

    title: str
    clean: NDArray[np.float32]  # (H, W, C) in [0, 1]
    before: tuple[int, float]
    rows: Sequence[Row]


def draw_photos(
    photos: Sequence[Photo], names: Sequence[str], notes: Sequence[str], width: float | None = None
) -> Drawing:
    """Draw each photograph: clean, the change (enlarged, and how much is said) and changed, with answers."""
    sheet = Sheet(width or COLUMN)
    side = (sheet.width - 2 * _EDGE) / 3 - _GAP
    for photo in photos:
        _block(sheet, photo, names, side)
    sheet.note(
        "clean, change (× s: a change d is drawn as 0.5 + s·d, grey where it is 0), changed; below: what the "
        "model takes it for, with its confidence"
    )
    for note in notes:
        sheet.note(note)
    return sheet.finished()


def _block(sheet: Sheet, photo: Photo, names: Sequence[str], side: float) -> None:
    size, small = FONT_SIZES["text"], FONT_SIZES["small"]
    lines = wrapped(photo.title, sheet.width - 2 * _EDGE, size, bold=True)
    sheet.down(0.08)
    sheet.text(_EDGE, "\n".join(lines), size=size, weight="bold")
    sheet.down(len(lines) * size * 1.3 / 72 + 0.02)
    tall = photo.clean.shape[0] / photo.clean.shape[1]
    for row in photo.rows:
        sheet.text(_EDGE, row.epsilon, size=small)
        sheet.down(small * 1.5 / 72)
        changed, scale = change(photo.clean, row.image)
        for j, (pixels, texts) in enumerate(
            (
                (photo.clean, answer(*photo.before, names)),
                (changed, (scale, row.distance)),
                (row.image, answer(*row.after, names)),
            )
        ):
            x = _EDGE + j * (side + _GAP)
            sheet.image(x, side, pixels)
            said = "\n".join(shortened(text, side + _GAP) for text in texts)
            sheet.text(x + side / 2, said, below=side * tall + 0.03, size=small, ha="center")
        sheet.down(side * tall + _TEXT)
