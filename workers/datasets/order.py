"""The order in which a dataset's examples are taken, the same everywhere and forever."""

from __future__ import annotations

import numpy as np

ORDER_VERSION = 1
"""Version of `evaluation_order` and `stratified_order`; part of every victim's identity."""

_EVALUATION_SEED = 0


def splitmix64(seed: int, count: int) -> np.ndarray:
    """The first `count` outputs of SplitMix64 for a seed, (count,) uint64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Written out here
    because NumPy does not promise that its own streams stay the same from one version to the next.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A permutation (N,) int64 of examples whose every prefix has the classes in near-proportion.

    Each class is shuffled, then spread evenly over (0, 1); the classes are merged by place. In a prefix of
    n, a class with share p of the K classes' examples has within 1/2 + p (K - 2) / 2 of n p examples: less
    than one where the classes are of equal size.
    """
    noise = splitmix64(seed, len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(noise[members], kind="stable")]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((noise, place)).astype(np.int64)


def evaluation_order(labels_test: np.ndarray) -> np.ndarray:
    """The order (N,) int64 in which a test split is evaluated; it never changes within `ORDER_VERSION`."""
    return stratified_order(labels_test, _EVALUATION_SEED)
