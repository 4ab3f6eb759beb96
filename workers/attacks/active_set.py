"""The (example, epsilon) pairs that an attack still works on, and what it has found and spent so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.attacks.randomness import Randomness
from workers.flags import Flag
from workers.network import Network
from workers.norms import Images, Norm

Choose = Literal["first", "strongest", "last"]

DRAWS = 20
"""By how many draws of a randomised model its gradients and answers are estimated while it is attacked."""

WON = 0.85
"""The share of those draws that ends the work on an image: by half of them, chance would win too soon."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What an attack is asked: images to attack, at which epsilons, and which finding to keep."""

    network: Network
    images: Images  # (N, H, W, C)
    labels: NDArray[np.int32]  # (N,)
    targets: NDArray[np.int32] | None  # (N,) where the attack is targeted
    clean_correct: NDArray[np.bool_]  # (N,)
    epsilons: NDArray[np.float64]  # (E,)
    norm: Norm
    choose: Choose
    randomness: Randomness
    draws: int = 1  # of the model's answer, wherever one is asked for; 1 for a model that is not randomised


@dataclass(slots=True, eq=False)
class Findings:
    """What has been found on N examples at E epsilons, and what it took. Padding is not counted."""

    success: NDArray[np.bool_]  # (E, N)
    distance: NDArray[np.float32]  # (E, N), infinite where not found
    images: Images  # (E, N, H, W, C)
    gradient_calls: NDArray[np.int32]  # (E, N)
    forward_calls: NDArray[np.int32]  # (E, N)
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)  # name: which examples, (N,)
    # Of a minimum-norm attack: the nearest images found, whatever the epsilons, and their distances, (N,).
    nearest_images: Images | None = None
    nearest: NDArray[np.float32] | None = None
    members: NDArray[np.object_] | None = None  # (E, N), of a bundle: the name of what succeeded, or None

    @classmethod
    def none(cls, epsilons: int, images: Images, *, minimum_norm: bool = False) -> Findings:
        """Nothing found yet: the clean images (N, H, W, C) at each of so many epsilons."""
        shape = (epsilons, len(images))
        return cls(
            success=np.zeros(shape, bool),
            distance=np.full(shape, np.inf, np.float32),
            images=np.repeat(images[None], epsilons, axis=0),
            gradient_calls=np.zeros(shape, np.int32),
            forward_calls=np.zeros(shape, np.int32),
            nearest_images=images.copy() if minimum_norm else None,
            nearest=np.full(len(images), np.inf, np.float32) if minimum_norm else None,
        )

    def take(self, part: slice, other: Findings) -> None:
        """Add what was found on some of the examples."""
        self.success[:, part], self.distance[:, part] = other.success, other.distance
        self.images[:, part] = other.images
        self.gradient_calls[:, part] += other.gradient_calls
        self.forward_calls[:, part] += other.forward_calls
        for name, examples in other.flags.items():
            self.flag(name, part.start + np.flatnonzero(examples))
        if other.nearest is not None and other.nearest_images is not None:
            self.keep_nearest(np.arange(len(self.images[0]))[part], other.nearest_images, other.nearest)
        if other.members is not None:
            if self.members is None:
                self.members = np.full(self.success.shape, None, object)
            self.members[:, part] = other.members

    def keep_nearest(
        self, examples: NDArray[np.integer], images: Images, distance: NDArray[np.float32]
    ) -> None:
        """Keep the nearest images (n, H, W, C) of some examples, where that is what the attack looks for."""
        if self.nearest is not None and self.nearest_images is not None:
            self.nearest_images[examples], self.nearest[examples] = images, distance

    def flag(self, name: str, examples: NDArray[np.integer]) -> None:
        if len(examples):
            self.flags.setdefault(name, np.zeros(self.success.shape[1], bool))[examples] = True


class ActiveSet:
    """Rows of undecided work, one for each clean-correct example and epsilon > 0, and the findings.

    A minimum-norm attack looks for the nearest image whatever the epsilons: where none is above 0, each
    example has a row at the first.

    Rows (R,): `example` and `level` index the call's examples and epsilons; `radius` is the row's epsilon,
    (R, 1, 1, 1) float32; `clean` its clean image; `labels` and `targets` its classes (without targets, the
    labels stand in). With `choose="first"` a row leaves at its first success.

    An example's randomness comes from `randomness`, never from its place in the batch.

    A randomised model is asked `draws` times wherever it is asked. Gradients and losses are means
    (expectation over transformation: Athalye, Engstrom, Ilyas and Kwok, arXiv:1707.07397). Logits are those
    of one of the draws, for each row: the one whose lead is positive only where at least 17 of 20 are. In the
    end the best iterate is taken, of which most of some fresh draws are enough.
    """

    def __init__(self, task: Task, *, minimum_norm: bool = False) -> None:
        self.task = task
        self.norm, self.choose, self.randomness = task.norm, task.choose, task.randomness
        self.targeted = task.targets is not None
        self.found = Findings.none(len(task.epsilons), task.images, minimum_norm=minimum_norm)
        self._best_loss = np.full(self.found.success.shape, -np.inf)
        attacked = task.epsilons > 0
        if minimum_norm and not attacked.any():
            attacked[0] = True
        self.level, self.example = np.nonzero(attacked[:, None] & task.clean_correct)

    def __len__(self) -> int:
        return len(self.level)

    @property
    def epsilons(self) -> NDArray[np.float64]:
        return self.task.epsilons

    @property
    def clean(self) -> Images:
        return self.task.images[self.example]

    @property
    def labels(self) -> NDArray[np.int32]:
        return self.task.labels[self.example]

    @property
    def targets(self) -> NDArray[np.int32]:
        return self.labels if self.task.targets is None else self.task.targets[self.example]

    @property
    def radius(self) -> Images:
        return self.per_row(self.epsilons)

    def per_row(self, per_epsilon: NDArray[np.float64]) -> Images:
        """A quantity given for each epsilon, (E,), as each row's own, (R, 1, 1, 1) float32."""
        return per_epsilon[self.level].astype(np.float32)[:, None, None, None]

    def project(self, images: Images) -> Images:
        """Images (R, H, W, C) moved into their rows' balls and the box."""
        return self.norm.project(images, self.clean, self.radius)

    def confine(self, images: Images) -> Images:
        """Images (R, H, W, C) clipped to the box, then moved into their rows' balls."""
        return self.norm.confine(images, self.clean, self.radius)

    def random_start(self, stream: int = 0) -> Images:
        """A point drawn uniformly from each row's ball, clipped to the box; the same for all epsilons."""
        change = self.randomness.draw(self.norm, self.example, self.task.images.shape[1:], stream)
        return self.project(self.clean + self.radius * change)

    def clean_gradients(self, loss: str | None = None) -> Images:
        """Gradients at the rows' clean images, (R, H, W, C): one call an example, shared by its epsilons."""
        # Rows are in the order of the epsilons, so an example's first row is at its first epsilon.
        _, first, back = np.unique(self.example, return_index=True, return_inverse=True)
        _, _, gradients = self.gradients_at(first, self.clean[first], loss)
        return gradients[back]

    def logits_and_gradients(self, iterates: Images, loss: str | None = None) -> tuple[Images, Images]:
        """Logits (R, K) and gradients (R, H, W, C) at the rows' iterates, as `gradients_at` has them."""
        logits, _, gradients = self.gradients_at(slice(None), iterates, loss)
        return logits, gradients

    def gradients_at(
        self,
        rows: NDArray[np.integer] | slice,
        images: Images,
        loss: str | None = None,
        targets: NDArray[np.int32] | None = None,
    ) -> tuple[Images, Images, Images]:
        """Logits, losses and gradients for some of the rows: the cross-entropy (targeted, if the attack is).

        `loss` and `targets` take another (`workers.losses`). A gradient that is not finite becomes 0,
        and such logits too; both are flagged.
        """
        example, level = self.example[rows], self.level[rows]
        self.found.gradient_calls[level, example] += self.task.draws
        if targets is None and self.task.targets is not None:
            targets = self.task.targets[example]
        if loss is None:
            loss = "targeted_cross_entropy" if self.targeted else "cross_entropy"
        labels = self.task.labels[example]
        network, draws = self.task.network, self.task.draws
        logits, losses, gradients = network.gradients(images, labels, targets, loss)
        if draws > 1:
            answers = [logits]
            for _ in range(draws - 1):
                logits, more_losses, more = network.gradients(images, labels, targets, loss)
                answers.append(logits)
                losses, gradients = losses + more_losses, gradients + more
            logits = self._to_win(np.stack(answers), example)
            losses, gradients = losses / np.float32(draws), gradients / np.float32(draws)
        logits, gradients = self._usable(logits, gradients, example)
        return logits, np.nan_to_num(losses), gradients

    def differences_at(
        self, rows: NDArray[np.integer] | slice, images: Images, classes: NDArray[np.int32]
    ) -> tuple[Images, Images]:
        """Logits (R, K) and gradients (R, J, H, W, C) of z_class − z_label; counted as J gradient calls.

        Of a randomised model both are means over the draws.
        """
        example = self.example[rows]
        network, labels, draws = self.task.network, self.task.labels[example], self.task.draws
        self.found.gradient_calls[self.level[rows], example] += draws * classes.shape[1]
        logits, gradients = network.differences(images, labels, classes)
        for _ in range(draws - 1):
            more_logits, more = network.differences(images, labels, classes)
            logits, gradients = logits + more_logits, gradients + more
        if draws > 1:
            logits, gradients = logits / np.float32(draws), gradients / np.float32(draws)
        return self._usable(logits, gradients, example)

    def logits(self, iterates: Images) -> Images:
        """Logits (R, K) of the rows' iterates."""
        return self.logits_at(slice(None), iterates)

    def logits_at(self, rows: NDArray[np.integer] | slice, images: Images, won: float = WON) -> Images:
        """Logits for some of the rows; 0 for all classes, and flagged, where they are not finite."""
        example, draws = self.example[rows], self.task.draws
        self.found.forward_calls[self.level[rows], example] += draws
        logits = self.task.network.logits(images)
        if draws > 1:
            more = [self.task.network.logits(images) for _ in range(draws - 1)]
            logits = self._to_win(np.stack([logits, *more]), example, won)
        return self._finite(logits, example, Flag.NON_FINITE_LOGITS)

    def succeeds(self, logits: Images, rows: NDArray[np.integer] | slice = slice(None)) -> NDArray[np.bool_]:
        """Whether logits mean success, at whatever distance: another class than the label, or the target."""
        return self._succeeds(logits, self.example[rows])

    def confirmed(self, rows: NDArray[np.integer], images: Images, won: float = WON) -> NDArray[np.bool_]:
        """Whether images succeed for these rows (R,) in fresh draws too, a share `won` of them.

        The first lucky draws among many iterates are no success. Always, where the model is not randomised.
        """
        if self.task.draws == 1 or not len(rows):
            return np.ones(len(rows), bool)
        return self.succeeds(self.logits_at(rows, images, won), rows)

    def judge(self, iterates: Images, logits: Images, *, final: bool) -> NDArray[np.bool_]:
        """Record what the rows' iterates are worth, given their logits; `final` says that no more follow.

        Returns which rows go on, (R,) bool; the others have left the set.
        """
        distance = self.norm.distance(self.clean, iterates)
        inside = metrics.within(distance, self.epsilons[self.level])
        success = self.succeeds(logits) & inside
        if self.choose == "first":
            kept = success | final
            if self.task.draws > 1:
                iterates, success = self._judge_draws(iterates, logits, success, inside, final=final)
                distance = self.norm.distance(self.clean, iterates)
                kept = np.ones_like(success)
        elif self.choose == "strongest":
            loss = self._loss(logits)
            kept = loss > self._best_loss[self.level, self.example]
            self._best_loss[self.level[kept], self.example[kept]] = loss[kept]
        else:
            kept = np.full_like(success, final)
        return self.record(kept, iterates, success, distance)

    def _judge_draws(
        self,
        iterates: Images,
        logits: Images,
        success: NDArray[np.bool_],
        inside: NDArray[np.bool_],
        *,
        final: bool,
    ) -> tuple[Images, NDArray[np.bool_]]:
        """Each row's best iterate so far (R, H, W, C) of a randomised model, and which succeed, (R,).

        One that ends the work is won in fresh draws too; in the end most of fresh draws are enough.
        """
        claimed = np.flatnonzero(success)
        success[claimed] = self.confirmed(claimed, iterates[claimed])
        at = self.level, self.example
        lead = self._lead(logits, self.example) / np.maximum(np.abs(logits).max(axis=1), np.float32(1e-37))
        lead = np.where(inside, np.nan_to_num(lead, nan=-np.inf), -np.inf)
        better = success | (lead > self._best_loss[at])
        self._best_loss[at] = np.where(better, lead, self._best_loss[at])
        best = np.where(better[:, None, None, None], iterates, self.found.images[at])
        if final:
            left = np.flatnonzero(~success & np.isfinite(self._best_loss[at]))
            success[left] = self.confirmed(left, best[left], won=0.5)
        return best, success

    def record(
        self,
        kept: NDArray[np.bool_],
        images: Images,
        success: NDArray[np.bool_],
        distance: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """Take the images (R, H, W, C) of the rows `kept` as their findings. Returns which rows go on."""
        at = self.level[kept], self.example[kept]
        self.found.images[at] = images[kept]
        self.found.success[at] = success[kept]
        self.found.distance[at] = np.where(success, distance, np.inf)[kept]
        staying = ~success if self.choose == "first" else np.ones_like(success)
        self.level, self.example = self.level[staying], self.example[staying]
        return staying

    def leave_successes(self) -> None:
        """Drop the rows whose finding is a success, whatever `choose` says."""
        staying = ~self.found.success[self.level, self.example]
        self.level, self.example = self.level[staying], self.example[staying]

    def _usable(
        self, logits: Images, gradients: Images, example: NDArray[np.integer]
    ) -> tuple[Images, Images]:
        """Both as they are where finite, else 0; what is wrong with them flagged."""
        sound = np.isfinite(logits).all(axis=1)
        flat = ~gradients.any(axis=tuple(range(1, gradients.ndim)))  # before NaN becomes 0: that is no zero
        logits = self._finite(logits, example, Flag.NON_FINITE_LOGITS)
        gradients = self._finite(gradients, example, Flag.NON_FINITE_GRADIENTS)
        self.found.flag(Flag.ZERO_GRADIENTS, example[flat & sound & ~self._succeeds(logits, example)])
        return logits, gradients

    def _finite(self, values: Images, example: NDArray[np.integer], flag: str) -> Images:
        if np.isfinite(values).all():
            return values
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        self.found.flag(flag, example[bad])
        values = values.copy()
        values[bad] = 0
        return values

    def _succeeds(self, logits: Images, example: NDArray[np.integer]) -> NDArray[np.bool_]:
        scale = self.task.network.logit_size
        if self.task.targets is None:
            return metrics.fools(logits, self.task.labels[example], scale)
        return metrics.favours(logits, self.task.targets[example], scale)

    def _to_win(self, answers: Images, example: NDArray[np.integer], won: float = WON) -> Images:
        """Of answers (D, R, K), for each row the one that is won only where a share of them is, (R, K)."""
        leads = np.stack([self._lead(logits, example) for logits in answers])
        ranked = np.argsort(np.nan_to_num(leads, nan=-np.inf), axis=0, kind="stable")
        chosen = ranked[min(int((1 - won) * len(answers) + 1e-9), (len(answers) - 1) // 2)]
        faced: Images = answers[chosen, np.arange(answers.shape[1])]
        return faced

    def _lead(self, logits: Images, example: NDArray[np.integer]) -> NDArray[np.float64]:
        """By how much logits (R, K) are on the attack's side, (R,); NaN where they are not finite."""
        if self.task.targets is None:
            return metrics.lead(logits, self.task.labels[example])
        return -metrics.lead(logits, self.task.targets[example])

    def _loss(self, logits: Images) -> NDArray[np.float64]:
        """The loss whose highest iterate is the strongest: the cross-entropy, (R,)."""
        sign = -1 if self.targeted else 1
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(logits)), self.targets]
        loss: NDArray[np.float64] = sign * (np.log(np.exp(shifted).sum(axis=1)) - chosen)
        return loss
