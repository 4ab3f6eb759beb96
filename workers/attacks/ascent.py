"""Projected gradient ascent on the cross-entropy: what FGSM and BIM share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.attacks.active_set import ActiveSet
from workers.attacks.projection import direction, project


def ascend(rows: ActiveSet, *, steps: int, step_sizes: NDArray[np.float64]) -> None:
    """Take `steps` from the clean image for every row of the active set; `step_sizes` are (E,), [0, 1] scale.

    All epsilons go at once. The gradient at the clean image is shared by them, the logits that come with
    every later gradient judge the iterate it is taken at, and only the last iterate needs a pass of its own.
    """
    if not len(rows):
        return
    iterates, gradients = rows.clean, rows.clean_gradients()
    for step in range(1, steps + 1):
        moved = iterates + rows.per_row(step_sizes) * direction(gradients, rows.norm)
        iterates = project(moved, rows.clean, rows.radius, rows.norm)
        if step == steps:
            rows.judge(iterates, rows.logits(iterates), final=True)
            return
        logits, gradients = rows.logits_and_gradients(iterates)
        undecided = rows.judge(iterates, logits, final=False)
        if not len(rows):
            return
        iterates, gradients = iterates[undecided], gradients[undecided]
