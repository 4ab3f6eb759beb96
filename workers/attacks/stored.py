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
from workers.attacks.stored_images import StoredImages, read_stored
from workers.flags import Flag


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Stored(Attack):
    """The images in the .npz file at `path`, a local path or a URI, in place of an attack's own.

    An image made for an epsilon counts at that one only, and must lie within it (flag `beyond_epsilon` where
    it does not); one made for none counts wherever its distance allows. An example that the file does not
    hold is a failure of the attack, flagged `not_stored`. Where an image is too far, what is returned is the
    image projected to the ball, never as a success. `content` is the SHA-256 that the file must have.

    The file: see `workers.attacks.stored_images`. Calling it raises StoredImagesError (a ValueError) for a
    file that cannot be read, is not as described there, has changed, or does not fit the images or epsilons.
    """

    name: ClassVar[str] = "stored"
    choose_matters: ClassVar[bool] = False

    path: str
    content: str | None = None

    def search(self, rows: ActiveSet) -> None:
        stored = _held(self.path, self.content) if self.content else read_stored(self.path)
        stored.check_fits(rows.task.images.shape[1:], rows.epsilons)
        place = stored.places(rows.randomness.example_indices[rows.example])
        here = np.flatnonzero(place >= 0)
        rows.found.flag(Flag.NOT_STORED, rows.example[place < 0])
        if not len(here):
            return
        images, found = rows.clean, rows.clean
        found[here] = stored.images_at(place[here], rows.epsilons[rows.level[here]])
        distance: NDArray[np.float32] = rows.norm.distance(images, found)
        inside = metrics.within(distance, rows.epsilons[rows.level])
        if stored.epsilons is not None:
            rows.found.flag(Flag.BEYOND_EPSILON, rows.example[~inside])
        success = np.zeros(len(rows), bool)
        success[here] = rows.succeeds(rows.logits_at(here, found[here]), here) & inside[here]
        tries = np.where(inside[:, None, None, None], found, rows.project(found))
        rows.record(place >= 0, tries, success, distance)


@lru_cache(maxsize=1)
def _held(path: str, content: str) -> StoredImages:
    """A file whose content is known, kept for the next unit."""
    return read_stored(path, content)
