"""The (example, epsilon) pairs that an attack still works on, and what it has found and spent so far."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.attacks.gradients import Network
from workers.attacks.projection import Images

Choose = Literal["first", "strongest", "last"]


class ActiveSet:
    """Rows of undecided work, one for each clean-correct example and epsilon > 0, and the findings.

    Rows (R,): `example` and `level` index the call's examples and epsilons; `radius` is the row's epsilon,
    (R, 1, 1, 1) float32; `clean` its clean image. An example's randomness is to be keyed by `seed` and
    its entry of `example_indices` (N,), never by its place in the batch. With `choose="first"` a row leaves
    at its first success.

    Findings: `success` (E, N), `distance` (E, N), infinite where not found, and `images` (E, N, H, W, C).
    Spent: `gradient_calls` and `forward_calls` (E, N); padding is not counted.
    """

    def __init__(
        self,
        network: Network,
        images: Images,
        labels: NDArray[np.int32],
        clean_correct: NDArray[np.bool_],
        epsilons: NDArray[np.float64],
        norm: Literal["linf", "l2"],
        choose: Choose,
        seed: int,
        example_indices: NDArray[np.integer],
    ) -> None:
        self.network, self.norm, self.choose = network, norm, choose
        self.seed, self.example_indices = seed, example_indices
        self._clean, self._labels, self.epsilons = images, labels, epsilons
        shape = (len(epsilons), len(images))
        self.success = np.zeros(shape, bool)
        self.distance = np.full(shape, np.inf, np.float32)
        self.images = np.repeat(images[None], len(epsilons), axis=0)
        self.gradient_calls = np.zeros(shape, np.int32)
        self.forward_calls = np.zeros(shape, np.int32)
        self._loss = np.full(shape, -np.inf)
        self.level, self.example = np.nonzero((epsilons > 0)[:, None] & clean_correct)

    def __len__(self) -> int:
        return len(self.level)

    @property
    def clean(self) -> Images:
        return self._clean[self.example]

    @property
    def labels(self) -> NDArray[np.int32]:
        return self._labels[self.example]

    @property
    def radius(self) -> Images:
        return self.per_row(self.epsilons)

    def per_row(self, per_epsilon: NDArray[np.float64]) -> Images:
        """A quantity given for each epsilon, (E,), as each row's own, (R, 1, 1, 1) float32."""
        return per_epsilon[self.level].astype(np.float32)[:, None, None, None]

    def clean_gradients(self) -> Images:
        """Gradients at the rows' clean images, (R, H, W, C): one call an example, shared by its epsilons."""
        examples, first, back = np.unique(self.example, return_index=True, return_inverse=True)
        _, gradients = self.network.logits_and_gradients(self._clean[examples], self._labels[examples])
        # Rows are in the order of the epsilons, so an example's first row is at its first epsilon.
        self.gradient_calls[self.level[first], examples] += 1
        return gradients[back]

    def logits_and_gradients(self, iterates: Images) -> tuple[Images, Images]:
        """Logits (R, K) and gradients (R, H, W, C) at the rows' iterates."""
        self.gradient_calls[self.level, self.example] += 1
        return self.network.logits_and_gradients(iterates, self.labels)

    def logits(self, iterates: Images) -> Images:
        """Logits (R, K) of the rows' iterates."""
        self.forward_calls[self.level, self.example] += 1
        return self.network.logits(iterates)

    def judge(self, iterates: Images, logits: Images, *, final: bool) -> NDArray[np.bool_]:
        """Record what the rows' iterates are worth, given their logits; `final` says that no more follow.

        Returns which rows go on, (R,) bool; the others have left the set.
        """
        distance = getattr(metrics, self.norm)(self.clean, iterates)
        success = metrics.fools(logits, self.labels) & metrics.within(distance, self.epsilons[self.level])
        if self.choose == "first":
            kept, leaving = success | final, success
        elif self.choose == "strongest":
            loss = _cross_entropy(logits, self.labels)
            kept, leaving = loss > self._loss[self.level, self.example], np.zeros_like(success)
            self._loss[self.level[kept], self.example[kept]] = loss[kept]
        else:
            kept, leaving = np.full_like(success, final), np.zeros_like(success)
        at = self.level[kept], self.example[kept]
        self.images[at] = iterates[kept]
        self.success[at] = success[kept]
        self.distance[at] = np.where(success, distance, np.inf)[kept]
        self.level, self.example = self.level[~leaving], self.example[~leaving]
        return ~leaving


def _cross_entropy(logits: Images, labels: NDArray[np.int32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    loss: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return loss
