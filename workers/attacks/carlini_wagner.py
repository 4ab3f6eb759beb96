"""Carlini and Wagner's L2 attack."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers.attacks.adam import Adam
from workers.attacks.annealing import cosine
from workers.attacks.ascent import Positive
from workers.attacks.minimum_norm import MinimumNorm
from workers.attacks.nearest import Nearest, Rows
from workers.norms import L2, Images

_STRETCH = np.float32(0.5)
"""Pixels are tanh(w) / 0.5, so that 0 and 1 lie at finite w, with three quarters of the slope at mid-grey.

At Foolbox's 0.999999 it is a millionth, and a black pixel needs dozens of steps to begin to move.
"""

_OVERSHOOT = 1.5  # the start, in steps of the length that an affine model would need to reach the boundary
_BEYOND = np.float32(1.5)  # later starts, in distances of the nearest image: on its way back Adam may turn
_FIRST_CONST = 6.0  # the first c, in units of the least that is enough for an affine model
_SETTLED = 0.8  # the share of the steps by which success must be seen again if c is to count as large enough
_PROGRESS = 0.995  # of the best loss a tenth of the steps ago: less progress ends the descent
_LARGEST_CONST = 1e30  # float32 has to hold it
_LAST_RATE = 0.05  # of the learning rate, at the last step


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class CarliniWagner(MinimumNorm):
    """Adam on ‖x − clean‖² + c · max(0, `confidence` − margin), with c bracketed for each example.

    Each of `binary_search_steps` tries one c for up to `steps` gradients: ten times as much after failure,
    and once something has been enough, the geometric mean of the bracket or half. The first c is
    `initial_const`, by default six times what an affine model with the clean image's gradient needs. The
    first try starts beyond the boundary of that model, later ones beyond the nearest image found.
    `abort_early` ends a try when its loss has not fallen by 0.5% in a tenth of the steps, for each example
    on its own. `learning_rate`, in tanh space, falls along a cosine to a twentieth within a try, so that
    0.05 suits anything from 50 to some hundreds of steps.

    Carlini and Wagner, "Towards Evaluating the Robustness of Neural Networks" (arXiv:1608.04644). Loss and
    optimiser are those of Foolbox's `L2CarliniWagnerAttack`; starts, the choice of c, the falling rate and
    the finite tanh space are not, and need fewer steps: on an MNIST network, four times the gradients of
    the default budget came 0.5% nearer.

    `confidence` (logits) is the margin that counts as success, also for the bisection of `refine`. An
    example whose clean image has no gradient at all is given up at once.
    """

    name: ClassVar[str] = "carlini_wagner"
    NORMS: ClassVar[tuple[str, ...]] = ("l2",)

    norm: Literal["l2"] = "l2"
    binary_search_steps: Annotated[int, Field(ge=1)] = 9
    steps: Annotated[int, Field(ge=1)] = 100
    learning_rate: Positive = 0.05
    initial_const: Positive | None = None
    confidence: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    abort_early: bool = True
    targeted: bool = False

    def find(self, nearest: Nearest) -> None:
        nearest.confidence = self.confidence
        rows = np.arange(len(nearest))
        logits, margins, gradients = nearest.gradients(rows, nearest.clean, self._loss)
        lengths = L2.dual(gradients)
        # Without any gradient at the clean image the loss has nowhere to go.
        rows = np.flatnonzero(lengths)
        if not len(rows):
            return
        # The affine model's boundary. No two images are farther apart than the box's diagonal.
        farthest = L2.diagonal(nearest.clean[0].size)
        ahead = np.full(len(nearest), farthest)
        missing = self._missing(margins, nearest.blur(logits))
        ahead[rows] = np.minimum(missing[rows] / lengths[rows], farthest)
        consts = np.full(len(nearest), _LARGEST_CONST)
        consts[rows] = np.minimum(2 * _FIRST_CONST * ahead[rows] / lengths[rows], _LARGEST_CONST)
        if self.initial_const is not None:
            consts[:] = self.initial_const
        start = np.minimum(_OVERSHOOT * ahead, farthest)
        starts = nearest.clean + start.astype(np.float32)[:, None, None, None] * L2.direction(gradients)
        low, high = np.zeros(len(nearest)), np.full(len(nearest), np.inf)
        for _ in range(self.binary_search_steps):
            found = np.isfinite(nearest.distance)
            starts[found] = nearest.clean[found] + _BEYOND * (nearest.images - nearest.clean)[found]
            enough = self._descend(nearest, rows, starts[rows], consts[rows])
            high[rows[enough]] = consts[rows[enough]]
            low[rows[~enough]] = consts[rows[~enough]]
            bracketed = np.isfinite(high[rows])
            # Halving c stands in for the geometric mean as long as nothing has failed.
            floor = np.maximum(low[rows], high[rows] / 4)
            between = np.sqrt(floor * np.where(bracketed, high[rows], 1))
            consts[rows] = np.where(bracketed, between, np.minimum(10 * consts[rows], _LARGEST_CONST))

    def _descend(
        self, nearest: Nearest, rows: Rows, starts: Images, consts: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """One try from images (r, H, W, C) with each row's c (r,). Returns where c was enough, (r,) bool."""
        clean = nearest.clean[rows]
        points = np.arctanh(_STRETCH * (2 * np.clip(starts, 0, 1) - 1))
        bound = np.arctanh(_STRETCH)
        adam = Adam(points.shape)
        going = np.arange(len(rows))
        seen, taken = np.full(len(rows), -1), np.zeros(len(rows), int)
        best, checked = np.full(len(rows), np.inf), np.full(len(rows), np.inf)
        for step in range(self.steps):
            tangents = np.tanh(points)
            images = np.clip((tangents / _STRETCH + 1) / 2, 0, 1)
            logits, margins, gradients = nearest.gradients(rows[going], images, self._loss)
            seen[going[nearest.offer(rows[going], images, logits)]] = step
            taken[going] = step
            missing = self._missing(margins, nearest.blur(logits))
            change = images - clean[going]
            loss = np.einsum("rhwc,rhwc->r", change, change, dtype=np.float64) + consts[going] * missing
            best[going] = np.minimum(best[going], loss)
            pull = np.where(missing > 0, consts[going], 0).astype(np.float32)[:, None, None, None]
            slope = (2 * change - pull * gradients) * (1 - tangents * tangents)
            rate = np.float32(cosine(self.learning_rate, _LAST_RATE * self.learning_rate, step, self.steps))
            points = np.clip(points - rate * adam.step(slope), -bound, bound)
            if self.abort_early and (step + 1) % -(-self.steps // 10) == 0:
                progress = best[going] < _PROGRESS * checked[going]
                checked[going] = best[going]
                going, points = going[progress], points[progress]
                adam.keep(progress)
                if not len(going):
                    break
        return seen > _SETTLED * taken

    def _missing(self, margins: NDArray[np.float32], blur: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the margins (r,) lack for success, in logits, (r,)."""
        return np.maximum(self.confidence + blur - margins.astype(np.float64), 0)

    @property
    def _loss(self) -> str:
        return "targeted_margin" if self.targeted else "margin"
