"""What a model answers, in one call or in several draws of a randomised one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.network import Network

DRAWS = 20
"""Fresh draws by which a randomised model's answer to an image is scored."""


class Answers(NamedTuple):
    """The answers to N images, over one or more draws."""

    label: NDArray[np.int64]  # (N,): the class answered most often
    confidence: NDArray[np.float32]  # (N,): its mean softmax probability, in [0, 1]
    finite: NDArray[np.bool_]  # (N,): logits were finite in every draw; else they favour no class there
    share: NDArray[np.float32]  # (N,): of the draws that were judged true

    @property
    def mostly(self) -> NDArray[np.bool_]:
        """Where more than half of the draws were judged true, (N,)."""
        return self.share > 0.5


def summarise(
    draws: Iterable[NDArray[np.float32]], judge: Callable[[NDArray[np.float32]], NDArray[np.bool_]]
) -> Answers:
    """Answers from the logits (N, K) of at least one draw; `judge` says of logits what is true, (N,) bool."""
    total = 0
    for logits in draws:
        if not total:
            votes, probability = np.zeros(logits.shape, np.int64), np.zeros(logits.shape)
            true, finite = np.zeros(len(logits), np.int64), np.ones(len(logits), bool)
        total += 1
        answered = metrics.answered(logits)
        finite &= answered
        rows = np.flatnonzero(answered)
        votes[rows, logits[rows].argmax(axis=1)] += 1
        shifted = logits[rows].astype(np.float64) - logits[rows].max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        probability[rows] += powers / powers.sum(axis=1, keepdims=True)
        true += judge(logits)
    label = votes.argmax(axis=1)
    times = np.maximum(votes.sum(axis=1), 1)
    confidence = probability[np.arange(len(label)), label] / times
    return Answers(label, confidence.astype(np.float32), finite, (true / total).astype(np.float32))


def fresh_draws(
    network: Network, images: NDArray[np.float32], *key: int, batch_size: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """The logits (N, K) of (N, H, W, C) images in `DRAWS` draws, which follow from the key's integers."""
    for draw in range(DRAWS):
        network.reseed(*key, draw)
        yield network.logits(images, batch_size=batch_size)
