"""What is wrong with a model as something to attack, seen on a few images before the attack begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.attacks.gradients import Network

_PROBES = 8


@dataclass(frozen=True, slots=True)
class Health:
    """The number of a model's classes, and its faults by name (`AttackResult.flags`)."""

    classes: int
    faults: tuple[str, ...]


def examine(network: Network, images: NDArray[np.float32]) -> Health:
    """Two passes over up to 8 of the (N, H, W, C) images, N ≥ 1, and 8 of noise."""
    noise = np.random.default_rng(0).random((_PROBES, *images.shape[1:]), np.float32)
    probes = np.concatenate([images[:_PROBES], noise])
    logits, again = network.logits(probes), network.logits(probes)
    faults = []
    if np.isfinite(logits).all():
        if not np.array_equal(logits, again):
            faults.append("nondeterministic")
        if (logits == logits[0]).all():
            faults.append("constant_model")
        if (logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) < 1e-3).all():
            faults.append("probabilities")
    return Health(logits.shape[1], tuple(faults))
