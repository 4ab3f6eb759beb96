"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass as state
from dataclasses import fields
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workers.attacks.active_set import ActiveSet
from workers.attacks.base import Attack
from workers.attacks.classes import likeliest
from workers.norms import Images

MOMENTUM = 0.75  # the share of a new step; the rest repeats the last one
RISING = 0.75  # a step size is kept where at least this share of its steps raised the loss

_RESTARTS = 5

_STREAMS = 2**16  # per restart, so that each of its runs has a random start of its own


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class APGD(Attack):
    """`steps` with momentum from a random point of the ball, `restarts` times on what has held.

    Without `restarts` there are 5, as in ART, and one with `targeted_classes`, as in AutoAttack, which has
    one of either: from a single start, 2 to 5 points more of an L2-trained network's examples hold. Points
    are clipped to the box and then projected to the ball, as in ART: the other way round leaves a part of an
    L2 radius unspent, which costs about a point there.

    The step size begins at twice epsilon and is halved, going back to the best point so far, at checkpoints
    where the loss has mostly stopped rising. `loss` is the cross-entropy by default, or the difference of
    logits ratio (`dlr`). With `targeted_classes` > 0 (APGD-T; AutoAttack's has 9) each restart is one run
    against each of so many most likely other classes, by default with the targeted `dlr`; success is still
    any other class. `targeted` instead reaches the one class that the call gives. Croce and Hein, "Reliable
    Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-Free Attacks"
    (arXiv:2003.01690); other defaults as AutoAttack's.
    """

    name: ClassVar[str] = "apgd"
    VERSION: ClassVar[int] = 2
    randomised: ClassVar[bool] = True

    loss: Literal["cross_entropy", "dlr"] | None = None
    steps: Annotated[int, Field(ge=1)] = 100
    restarts: Annotated[int, Field(ge=1)] | None = None
    targeted_classes: Annotated[int, Field(ge=0)] = 0
    targeted: bool = False

    @model_validator(mode="after")
    def _one_kind_of_target(self) -> APGD:
        if self.targeted and self.targeted_classes:
            raise ValueError("found targeted together with targeted_classes; one of them is allowed")
        return self

    def search(self, rows: ActiveSet) -> None:
        if not len(rows):
            return
        aims = _aims(rows, self.targeted_classes)
        loss: str = self.loss or ("dlr" if self.targeted_classes else "cross_entropy")
        if self.targeted or self.targeted_classes:
            loss = f"targeted_{loss}"
        restarts = self.restarts or (1 if self.targeted_classes else _RESTARTS)
        for restart in range(restarts):
            for rank, aim in enumerate(aims):
                final = restart == restarts - 1 and rank == len(aims) - 1
                _run(rows, self.steps, loss, aim, rows.random_start(restart * _STREAMS + rank), final)
                if not len(rows):
                    return


def _aims(rows: ActiveSet, count: int) -> list[NDArray[np.int32]]:
    """The class to aim at in each run, for every example of the call; the attack's own for a count of 0."""
    if not count:
        return [rows.task.labels if rows.task.targets is None else rows.task.targets]
    examples, first = np.unique(rows.example, return_index=True)
    others = likeliest(rows.logits_at(first, rows.clean[first]), rows.labels[first], count)
    aims = np.zeros((others.shape[1], len(rows.task.labels)), np.int32)
    aims[:, examples] = others.T
    return list(aims)


def _run(rows: ActiveSet, steps: int, loss: str, aim: NDArray[np.int32], start: Images, final: bool) -> None:
    """Ascend one loss from `start` (R, H, W, C); `final`: nothing comes after this."""
    iterates = start
    ascent: _Ascent | None = None
    checkpoint = 0
    checkpoints = _checkpoints(steps)
    for step in range(steps):
        logits, losses, gradients = rows.gradients_at(slice(None), iterates, loss, aim[rows.example])
        staying = rows.judge(iterates, logits, final=False)
        if not len(rows):
            return
        if not staying.all():
            iterates, losses, gradients = iterates[staying], losses[staying], gradients[staying]
            if ascent is not None:
                ascent.keep(staying)
        if ascent is None:
            ascent = _Ascent.begin(iterates, losses, gradients, 2 * rows.radius)
        else:
            ascent.visit(iterates, losses, gradients)
        if step in checkpoints:
            iterates, gradients = ascent.check(step - checkpoint, iterates, gradients)
            checkpoint = step
        iterates = ascent.move(rows, iterates, gradients)
    rows.judge(iterates, rows.logits(iterates), final=final)


def _checkpoints(steps: int) -> frozenset[int]:
    """The paper's: periods of 22% of the steps, then each 3 points shorter, at least 6."""
    percent, period, found = 0, 22, []
    while percent + period < 100:
        percent += period
        found.append(-(-percent * steps // 100))
        period = max(period - 3, 6)
    return frozenset(found)


@state(slots=True, eq=False)
class _Ascent:
    """Where each row (R) has been: its last and best points, and how its loss went since the checkpoint."""

    last: Images
    last_losses: NDArray[np.float32]
    best: Images
    best_losses: NDArray[np.float32]
    best_gradients: Images
    step_sizes: Images  # (R, 1, 1, 1), in the norm
    rises: NDArray[np.int32]  # steps since the checkpoint that raised the loss
    checkpoint_losses: NDArray[np.float32]  # the best at the last checkpoint
    halved: NDArray[np.bool_]  # at the last checkpoint

    @classmethod
    def begin(
        cls, iterates: Images, losses: NDArray[np.float32], gradients: Images, step_sizes: Images
    ) -> _Ascent:
        return cls(
            last=iterates,
            last_losses=losses,
            best=iterates.copy(),
            best_losses=losses.copy(),
            best_gradients=gradients.copy(),
            step_sizes=step_sizes,
            rises=np.zeros(len(iterates), np.int32),
            checkpoint_losses=losses.copy(),
            halved=np.zeros(len(iterates), bool),
        )

    def keep(self, staying: NDArray[np.bool_]) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name)[staying])

    def visit(self, iterates: Images, losses: NDArray[np.float32], gradients: Images) -> None:
        """Take note of the iterates' losses (R,) and gradients."""
        self.rises += losses > self.last_losses
        self.last_losses = losses
        better = losses > self.best_losses
        self.best[better], self.best_gradients[better] = iterates[better], gradients[better]
        self.best_losses[better] = losses[better]

    def check(self, period: int, iterates: Images, gradients: Images) -> tuple[Images, Images]:
        """Halve step sizes that no longer pay after a `period` of steps: those rows go on from their best."""
        stuck = ~self.halved & (self.best_losses == self.checkpoint_losses)
        self.halved = (self.rises < RISING * period) | stuck
        self.checkpoint_losses = self.best_losses.copy()
        self.rises[:] = 0
        back = self.halved[:, None, None, None]
        self.step_sizes = np.where(back, self.step_sizes / 2, self.step_sizes)
        self.last = np.where(back, self.best, self.last)  # so that no momentum is left
        self.last_losses = np.where(self.halved, self.best_losses, self.last_losses)
        return np.where(back, self.best, iterates), np.where(back, self.best_gradients, gradients)

    def move(self, rows: ActiveSet, iterates: Images, gradients: Images) -> Images:
        """The next iterates: a projected step, and the momentum of the one before."""
        stepped = rows.confine(iterates + self.step_sizes * rows.norm.direction(gradients))
        following = iterates + MOMENTUM * (stepped - iterates) + (1 - MOMENTUM) * (iterates - self.last)
        # Without a step before there is nothing to repeat, so that the new one is taken whole.
        fresh = (iterates == self.last).all(axis=(1, 2, 3), keepdims=True)
        self.last = iterates
        return np.where(fresh, stepped, rows.confine(following))
