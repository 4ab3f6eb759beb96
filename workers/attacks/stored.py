"""Images that somebody else's tool made, judged by our definitions."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from workers import metrics
from workers.attacks.active_set import ActiveSet
from workers.attacks.base import Attack
from workers.attacks.plausibility import implausible, unchanged
from workers.attacks.stored_images import StoredImages, read_stored
from workers.flags import Flag
from workers.norms import Images


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Stored(Attack):
    """The images in the .npz file at `path`, a local path or a URI, in place of an attack's own.

    Where an image lies farther away than epsilon, be it by the rounding of a file of 8 bits, it is projected
    to the ball and that image is judged: a success is an image within epsilon, as of any attack. An image
    made for an epsilon is judged at that one only, one made for none at all of them.

    An example that the file does not hold is a failure of the attack, flagged `not_stored`. Images farther
    away than the epsilon that they were made for, by more than saving may have moved them, are flagged
    `beyond_epsilon`. Of these, or of those farther than the largest where the file has no epsilons, it is
    looked whether they can be what the file says (`workers.attacks.plausibility`). `content` is the SHA-256
    that the file must have.

    The file: see `workers.attacks.stored_images`. Calling it raises StoredImagesError (a ValueError) for a
    file that cannot be read, is not as described there, has changed, or does not fit the images or epsilons,
    or whose clean images are not those of the dataset.
    """

    name: ClassVar[str] = "stored"
    VERSION: ClassVar[int] = 2
    choose_matters: ClassVar[bool] = False
    asks_model: ClassVar[bool] = False

    path: str
    content: str | None = None

    def search(self, rows: ActiveSet) -> None:
        stored = _held(self.path, self.content) if self.content else read_stored(self.path)
        stored.check_fits(rows.task.images.shape[1:], rows.epsilons)
        indices = rows.randomness.example_indices[rows.example]
        place = stored.places(indices)
        here = np.flatnonzero(place >= 0)
        rows.found.flag(Flag.NOT_STORED, rows.example[place < 0])
        if not len(here):
            return
        clean = rows.clean
        once = here[np.unique(rows.example[here], return_index=True)[1]]
        stored.check_clean(place[once], clean[once], indices[once])
        found = clean.copy()
        found[here] = stored.images_at(place[here], rows.epsilons[rows.level[here]])
        self._look(rows, here, clean, found, stored)
        epsilons = rows.epsilons[rows.level]
        inside = metrics.within(rows.norm.distance(clean, found), epsilons)
        tries = np.where(inside[:, None, None, None], found, rows.project(found))
        distance: NDArray[np.float32] = rows.norm.distance(clean, tries)
        success = np.zeros(len(rows), bool)
        success[here] = rows.succeeds(rows.logits_at(here, tries[here]), here)
        rows.record(place >= 0, tries, success & metrics.within(distance, epsilons), distance)

    def _look(
        self, rows: ActiveSet, here: NDArray[np.intp], clean: Images, found: Images, stored: StoredImages
    ) -> None:
        """Flag what can hardly be what the file says, of the rows `here`; images are (R, H, W, C)."""
        for level in np.unique(rows.level[here]):
            there = here[rows.level[here] == level]
            # Of images for no epsilon, those that count at none as they are: they are the same at all.
            epsilon = float(rows.epsilons[level] if stored.epsilons is not None else rows.epsilons.max())
            change = found[there] - clean[there]
            # As near as they may have been before they were saved.
            least = np.sign(change) * np.maximum(np.abs(change) - np.float32(stored.moved), 0)
            distance = rows.norm.distance(clean[there], clean[there] + least)
            beyond = there[~metrics.within(distance, epsilon)]
            if unchanged(found[there], clean[there], stored.moved):
                rows.found.flag(Flag.UNCHANGED_IMAGES, rows.example[there])
            if flag := implausible(found[beyond], clean[beyond], rows.norm, epsilon):
                rows.found.flag(flag, rows.example[beyond])
            if stored.epsilons is None:
                return
            rows.found.flag(Flag.BEYOND_EPSILON, rows.example[beyond])


@lru_cache(maxsize=1)
def _held(path: str, content: str) -> StoredImages:
    """A file whose content is known, kept for the next unit."""
    return read_stored(path, content)
