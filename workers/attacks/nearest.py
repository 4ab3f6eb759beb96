"""The search for the nearest adversarial image: one row an example, whatever the epsilons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.attacks.active_set import ActiveSet
from workers.norms import Images

REFINED = 1e-3
"""Bisection ends where the nearest image is known to this share of its distance."""

_WON = 0.9
"""The share of a randomised model's fresh draws that must be won: one image stands for every epsilon."""

Rows = NDArray[np.integer]


class Nearest:
    """The distinct examples of an active set, and the nearest adversarial image found for each.

    `clean` (n, H, W, C), `labels` and `targets` (n,) int32 are the examples'; `images` (n, H, W, C) the
    nearest images found, the clean ones as long as there is none; `distance` (n,) float32 theirs in the
    attack's norm, else infinity. Methods take `rows`, indices into these; calls are counted at each example's
    first epsilon. `confidence`, in logits, is what a candidate must lead by on top of fooling the model.
    """

    def __init__(self, active: ActiveSet) -> None:
        self._active, self.norm, self.targeted = active, active.norm, active.targeted
        self.randomness = active.randomness
        self.example, self._first, self._back = np.unique(
            active.example, return_index=True, return_inverse=True
        )
        self.clean = active.clean[self._first]
        self.labels, self.targets = active.labels[self._first], active.targets[self._first]
        self.images = self.clean.copy()
        self.distance = np.full(len(self), np.inf, np.float32)
        self.confidence = 0.0

    def __len__(self) -> int:
        return len(self.example)

    def logits(self, rows: Rows, images: Images) -> Images:
        """Logits (r, K) of images (r, H, W, C) near those rows' clean ones."""
        return self._active.logits_at(self._first[rows], images)

    def gradients(
        self,
        rows: Rows,
        images: Images,
        loss: str | None = None,
        targets: NDArray[np.int32] | None = None,
    ) -> tuple[Images, Images, Images]:
        """Logits, losses and gradients, as `ActiveSet.gradients_at` has them."""
        return self._active.gradients_at(self._first[rows], images, loss, targets)

    def differences(self, rows: Rows, images: Images, classes: NDArray[np.int32]) -> tuple[Images, Images]:
        """Logits and the gradients of z_class − z_label, as `ActiveSet.differences_at` has them."""
        return self._active.differences_at(self._first[rows], images, classes)

    def blur(self, logits: Images) -> NDArray[np.float64]:
        """The lead (r,) in logits (r, K) that says nothing, as `metrics.blur` has it."""
        return metrics.blur(logits, self._active.task.network.logit_size)

    def offer(self, rows: Rows, images: Images, logits: Images) -> NDArray[np.bool_]:
        """Keep those images (r, H, W, C) in the box that succeed and are nearer than what there is.

        Returns which of them succeed, (r,) bool, near or far.
        """
        if self.confidence:
            logits = logits.copy()
            handicap = -self.confidence if self.targeted else self.confidence
            logits[np.arange(len(rows)), self.targets[rows]] += handicap
        success = self._active.succeeds(logits, self._first[rows])
        distance = self.norm.distance(self.clean[rows], images)
        closer = distance < self.distance[rows]
        chosen = np.flatnonzero(success & closer)
        success[chosen] = self._active.confirmed(self._first[rows[chosen]], images[chosen], _WON)
        nearer = success & closer
        self.images[rows[nearer]] = images[nearer]
        self.distance[rows[nearer]] = distance[nearer]
        return success

    def shrunk(self, rows: Rows, radius: NDArray[np.floating]) -> Images:
        """The rows' nearest images, projected to balls of the radii (r,): clipped (linf) or scaled (l2)."""
        size = radius.astype(np.float32)[:, None, None, None]
        return self.norm.project(self.images[rows], self.clean[rows], size)

    def refine(self) -> None:
        """Bisection from each nearest image towards its clean one.

        The first probe is at nine tenths, since most attacks end close to the boundary.
        """
        low = np.zeros(len(self))
        high = self.distance.astype(np.float64)
        rows = np.flatnonzero(np.isfinite(high) & (high > 0))
        share = 0.9
        while len(rows):
            middle = low[rows] + share * (high[rows] - low[rows])
            images = self.shrunk(rows, middle)
            success = self.offer(rows, images, self.logits(rows, images))
            high[rows[success]] = middle[success]
            low[rows[~success]] = middle[~success]
            rows = rows[high[rows] - low[rows] > REFINED * high[rows]]
            share = 0.5

    def settle(self) -> None:
        """Decide every epsilon by the distances; where too far, the last try is the image projected."""
        active = self._active
        active.found.keep_nearest(self.example, self.images, self.distance)
        images, distance = self.images[self._back], self.distance[self._back]
        epsilons = active.epsilons[active.level]
        inside = metrics.within(distance, epsilons) & (epsilons > 0)
        tries = images.copy()
        tries[~inside] = self.norm.project(images[~inside], active.clean[~inside], active.radius[~inside])
        if active.choose == "strongest":
            active.judge(tries, active.logits(tries), final=True)
        else:
            active.record(np.ones(len(active), bool), tries, inside, distance)
