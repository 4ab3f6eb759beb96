"""Certificates of a smoothed victim: within which L2 distance no image can have another answer.

Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing" (arXiv:1902.02918):
if the network behind the noise answers a class with a probability of at least p > 1/2 under N(0, sigma² I) on
an image, the smoothed one answers it on every image nearer than sigma · Phi^-1(p) (their Theorem 1). Their
CERTIFY: the class is chosen by some draws, p bounded from below by others.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers import metrics
from workers.network import Network, network_for
from workers.norms import Images
from workers.shards import CERTIFICATES, DIMENSIONS, dimensions
from workers.unit import Evaluation
from workers.victims.victim import Victim

_NOISE = 4  # key of the noise, beside those of the draws that images are scored by


class Certificate(NamedTuple):
    """What draws say of N images."""

    label: NDArray[
        np.int32
    ]  # (N,): the class that was answered most often when it was chosen; -1: none ever was
    votes: NDArray[np.int32]  # (N,): of the n other draws, those that answered it
    radius: NDArray[np.float64]  # (N,): within which no other class is answered; NaN: it abstains


def certify(
    network: Network,
    images: Images,
    keys: NDArray[np.integer],
    *,
    sigma: float,
    n0: int,
    n: int,
    alpha: float,
    seed: int = 0,
) -> Certificate:
    """Certificates of images (N, H, W, C) in [0, 1] for what `network` answers under noise `sigma`.

    Each is wrong with a probability of at most `alpha`. An image's noise follows from its key and the seed
    alone. An answer that is not finite is one of no class.
    """
    labels = np.full(len(images), -1, np.int32)
    votes = np.zeros(len(images), np.int32)
    for i, (image, key) in enumerate(zip(images, keys, strict=True)):
        generator = np.random.default_rng(np.random.SeedSequence((_NOISE, seed, int(key))))
        network.reseed(_NOISE, seed, int(key))  # a network that draws by itself, as behind another defence
        chosen = _votes(network, image, generator, sigma, n0)
        if chosen.any():
            labels[i] = chosen.argmax()
            votes[i] = _votes(network, image, generator, sigma, n)[labels[i]]
    return Certificate(labels, votes, radii(votes, n, sigma, alpha))


def radii(votes: NDArray[np.integer], n: int, sigma: float, alpha: float) -> NDArray[np.float64]:
    """sigma · Phi^-1(p) for the one-sided Clopper-Pearson bound p of `votes` in `n`; NaN where p ≤ 1/2."""
    from scipy.stats import beta

    votes = np.asarray(votes)
    share = np.where(votes > 0, beta.ppf(alpha, np.maximum(votes, 1), n - votes + 1), 0.0)
    found = np.full(votes.shape, np.nan)
    found[share > 0.5] = [sigma * NormalDist().inv_cdf(float(p)) for p in share[share > 0.5]]
    return found


def certificate_rows(unit: Evaluation, victim: Victim) -> pa.Table:
    """A table of `CERTIFICATES`, one row for each of the unit's examples, whatever the clean answer is."""
    indices = victim.order[unit.start : unit.stop]
    labels = victim.dataset.labels("test", indices)
    (smoothing,) = (part for part in unit.victim.defence.each if part.name == "smoothing")
    found = certify(
        network_for(victim.behind_noise, victim.dataset.shape),
        victim.dataset.images("test", indices),
        indices,
        sigma=smoothing.options["sigma"],
        seed=unit.attack.seed,
        **unit.attack.options,
    )
    ((cell_id, epsilon),) = unit.cells
    values = dimensions(unit.victim, unit.attack, cell_id, epsilon)
    abstained = np.isnan(found.radius)
    columns = {
        **{
            name: pa.repeat(pa.scalar(value, DIMENSIONS.field(name).type), len(indices))
            for name, value in values.items()
        },
        "position": np.arange(unit.start, unit.stop),
        "example_index": indices,
        "label": labels,
        "answer": pa.array(found.label, mask=abstained),
        "abstained": abstained,
        "radius": pa.array(found.radius, mask=abstained),
        "top_label": pa.array(found.label, mask=found.label < 0),
        "votes": found.votes,
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in CERTIFICATES]
    return pa.Table.from_arrays(arrays, schema=CERTIFICATES)


def _votes(
    network: Network, image: NDArray[np.float32], generator: np.random.Generator, sigma: float, draws: int
) -> NDArray[np.int64]:
    """How often each class is answered in so many draws, (K,)."""
    counts: NDArray[np.int64] = np.zeros(0, np.int64)
    for start in range(0, draws, _DRAWS):
        size = min(_DRAWS, draws - start)
        noise = generator.standard_normal((size, *image.shape), np.float32) * np.float32(sigma)
        logits = network.logits(image + noise, batch_size=_DRAWS)
        answered = logits[metrics.answered(logits)]
        here = np.bincount(answered.argmax(axis=1), minlength=logits.shape[1])
        counts = here if not len(counts) else counts + here
    return counts


_DRAWS = 256
"""Draws per call, always, as far as memory allows."""
