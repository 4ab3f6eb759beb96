"""The square attack: random search on the logits, without gradients."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from workers import metrics
from workers.attacks.active_set import ActiveSet
from workers.attacks.base import Attack
from workers.attacks.squares import Draws, L2Squares, LinfSquares
from workers.norms import LINF

_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which the share of changed pixels is halved."""

_SQUARES: dict[str, type[LinfSquares] | type[L2Squares]] = {"linf": LinfSquares, "l2": L2Squares}

_BLOCK = 100  # queries drawn at a time


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Square(Attack):
    """`queries` forward passes, each of a square changed at random; what raises the margin is kept.

    The first square covers a share `p_init` of the image; the share is halved nine times, on a schedule that
    is stretched to the number of queries. Forward passes only, so that nothing hidden from gradients is
    hidden from it. Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box
    adversarial attack via random search" (arXiv:1912.00049); defaults as in AutoAttack's bundle.
    """

    name: ClassVar[str] = "square"
    randomised: ClassVar[bool] = True
    by_gradients: ClassVar[bool] = False

    queries: Annotated[int, Field(ge=1)] = 5000
    p_init: Annotated[float, Field(gt=0, le=1)] = 0.8
    targeted: bool = False

    def search(self, rows: ActiveSet) -> None:
        if not len(rows):
            return
        clean, radius = rows.clean, rows.radius
        shape = clean.shape[1:]
        squares = _SQUARES[self.norm](shape)
        best = squares.start(clean, radius, _draws(rows, 1, squares.first_draws, 0)[:, 0])
        logits = rows.logits(best)
        margin = self._margin(rows, logits)
        for query in range(1, self.queries + 1):
            staying = rows.judge(best, logits, final=query == self.queries)
            if query == self.queries or not len(rows):
                return
            if not staying.all():
                best, logits, margin = best[staying], logits[staying], margin[staying]
                clean, radius = clean[staying], radius[staying]
            if (query - 1) % _BLOCK == 0:
                block = 1 + (query - 1) // _BLOCK
                draws = _draws(rows, _BLOCK, squares.draws, block)
            elif not staying.all():
                draws = draws[staying]
            side = self._side(query, shape, squares.least)
            proposed = squares.propose(best, clean, radius, side, draws[:, (query - 1) % _BLOCK])
            answers = rows.logits(proposed)
            raised = self._margin(rows, answers)
            better = raised > margin
            best[better], logits[better], margin[better] = proposed[better], answers[better], raised[better]

    def _side(self, query: int, shape: tuple[int, ...], least: int) -> int:
        """The side of the square that this query changes, in pixels."""
        height, width = shape[:2]
        halvings = bisect_left(_SCHEDULE, query * 10_000 // self.queries)
        side = max(least, round(math.sqrt(self.p_init / 2**halvings * height * width)))
        if least == L2Squares.least:
            side += 1 - side % 2
        return min(side, height, width)

    def _margin(self, rows: ActiveSet, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """By how much the logits are on the attack's side, (R,)."""
        if rows.targeted:
            return -metrics.lead(logits, rows.targets)
        return metrics.lead(logits, rows.labels)


def _draws(rows: ActiveSet, queries: int, numbers: int, stream: int) -> Draws:
    """Uniform in [0, 1), (R, queries, numbers); the same for all epsilons of an example."""
    cube = rows.randomness.draw(LINF, rows.example, (queries, numbers), stream)
    return (1 + cube.astype(np.float64)) / 2
