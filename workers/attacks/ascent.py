"""Projected gradient ascent: what FGSM, BIM and PGD share."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from workers.attacks.active_set import ActiveSet
from workers.norms import Images

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def sizes(rows: ActiveSet, relative: float, absolute: float | None) -> NDArray[np.float64]:
    """The size of a step at each epsilon, (E,): a share of it unless an absolute one is given."""
    return relative * rows.epsilons if absolute is None else np.full_like(rows.epsilons, absolute)


def ascend(
    rows: ActiveSet,
    *,
    steps: int,
    step_sizes: NDArray[np.float64],
    start: Images | None = None,
    final: bool = True,
    loss: str | None = None,
) -> None:
    """Take `steps` for every row of the active set; `step_sizes` are (E,), [0, 1] scale.

    From the clean images, where one gradient serves all epsilons, or from `start` (R, H, W, C). The logits
    that come with every gradient judge the iterate it is taken at, and only the last iterate needs a pass of
    its own. `final`: nothing comes after this. `loss`, of `workers.losses`: the cross-entropy by default.
    """
    if not len(rows):
        return
    if loss and rows.targeted:
        loss = f"targeted_{loss}"
    if start is None:
        iterates, gradients = rows.clean, rows.clean_gradients(loss)
    for step in range(1, steps + 1):
        if step > 1 or start is not None:
            iterates = iterates if start is None or step > 1 else start
            logits, gradients = rows.logits_and_gradients(iterates, loss)
            undecided = rows.judge(iterates, logits, final=False)
            if not len(rows):
                return
            iterates, gradients = iterates[undecided], gradients[undecided]
        iterates = rows.project(iterates + rows.per_row(step_sizes) * rows.norm.direction(gradients))
    rows.judge(iterates, rows.logits(iterates), final=final)
