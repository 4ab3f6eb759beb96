"""Projected gradient ascent: what FGSM, BIM and PGD share."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from workers.attacks.active_set import ActiveSet
from workers.attacks.annealing import cosine
from workers.norms import Images

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LossName = Literal["cross_entropy", "margin", "dlr"]


def foolbox_has_one_loss(like: str | None, loss: LossName) -> None:
    """Raises ValueError for a loss that Foolbox's attack does not have."""
    if like and loss != "cross_entropy":
        raise ValueError(f"found loss {loss} together with like {like}; cross_entropy is allowed")


def sizes(rows: ActiveSet, relative: float, absolute: float | None) -> NDArray[np.float64]:
    """The size of a step at each epsilon, (E,): a share of it unless an absolute one is given."""
    return relative * rows.epsilons if absolute is None else np.full_like(rows.epsilons, absolute)


def ascend(
    rows: ActiveSet,
    *,
    steps: int,
    step_sizes: NDArray[np.float64],
    loss: str = "cross_entropy",
    falling: bool = False,
    whole_ball: bool = False,
    start: Images | None = None,
    final: bool = True,
) -> None:
    """Take `steps` for every row of the active set; `step_sizes` are (E,), [0, 1] scale.

    `falling` steps get smaller, from these sizes towards 0 along half a cosine. With `whole_ball` a step is
    clipped to the box and then projected to the ball; else the other way round, as in most libraries, which
    in L2 leaves a part of the radius unspent.

    From the clean images, where one gradient serves all epsilons, or from `start` (R, H, W, C). The logits
    that come with every gradient judge the iterate it is taken at, and only the last iterate needs a pass of
    its own. `final`: nothing comes after this. `loss`: of `workers.losses`.
    """
    if not len(rows):
        return
    ascended = f"targeted_{loss}" if rows.targeted else loss
    if start is None:
        iterates, gradients = rows.clean, rows.clean_gradients(ascended)
    for step in range(1, steps + 1):
        if step > 1 or start is not None:
            iterates = iterates if start is None or step > 1 else start
            logits, gradients = rows.logits_and_gradients(iterates, ascended)
            undecided = rows.judge(iterates, logits, final=False)
            if not len(rows):
                return
            iterates, gradients = iterates[undecided], gradients[undecided]
        share = cosine(1, 0, step - 1, steps) if falling else 1
        moved = iterates + rows.per_row(share * step_sizes) * rows.norm.direction(gradients)
        iterates = rows.confine(moved) if whole_ball else rows.project(moved)
    rows.judge(iterates, rows.logits(iterates), final=final)
