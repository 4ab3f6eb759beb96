"""Probing a victim: what `workers.probes` has figures of, measured on its first 64 images in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import inference, metrics
from workers.answers import DRAWS
from workers.attacks import build
from workers.network import Network, NoGradientError
from workers.norms import L2, LINF, Images
from workers.probes import ATTACKS, EPSILONS, EXAMPLES, FIGURES, VERSION, Probes
from workers.victims.victim import Victim

_CALLS = 5
_STEPS = (0.5 / 255, 2 / 255, 8 / 255)  # Linf: the small steps that a gradient's promise is held against
_HAIR = 1e-4  # Linf: what makes an image a hair different
_CERTAIN = 2.0**-24  # what is left of a probability that float32 rounds to 1
_CONFIGS: dict[str, dict[str, Any]] = {
    "noise": {"name": "noise", "repeats": 3},
    "fgsm": {"name": "fgsm"},
    "bim": {"name": "bim"},
    "bim_margin": {"name": "bim", "loss": "margin"},
    "square": {"name": "square", "queries": 100},
}
_DRAWN_QUERIES = 20  # of the square attack on a randomised victim, which answers each 20 times
_WHOLE_BOX: tuple[dict[str, Any], ...] = (
    {"name": "pgd", "restarts": 2},
    {"name": "pgd", "restarts": 2, "loss": "margin"},
)

Figures = dict[str, float | None]
Margin = Callable[[Images, NDArray[np.int32]], tuple[NDArray[np.float64], Images, tuple[Images, Images]]]


def probe(victim_id: str, victim: Victim) -> Probes:
    """The figures of a victim; those that cannot be measured are null."""
    begun = time.perf_counter()
    rows = victim.order[:EXAMPLES]
    images, labels = victim.dataset.images("test", rows), victim.dataset.labels("test", rows)
    answers = victim.clean(0, len(rows))
    found: Figures = dict.fromkeys(FIGURES)
    logits = victim.logits(images)
    found |= {
        "examples": float(len(rows)),
        "clean_accuracy": float(answers.mostly.mean()),
        "non_finite_logits": float((~answers.finite).mean()),
        "defence_changes": _change(victim, images),
    }
    if answers.finite.all():
        found |= _of_logits(logits, victim.network.logit_size, answers.mostly)
        found |= _of_calls(victim, images, logits)
    right = np.flatnonzero(answers.mostly)
    if len(right):
        found |= _of_gradients(victim, images[right], labels[right].astype(np.int32))
        found |= _of_attacks(victim, images[right], labels[right])
    return Probes(
        victim_id=victim_id,
        weights=victim.weights,
        version=VERSION,
        figures=found,
        seconds=time.perf_counter() - begun,
    )


def _change(victim: Victim, images: Images) -> float | None:
    """The mean change of a pixel of images (N, H, W, C) by a defence at inference, in 255ths."""
    import keras

    model, changed = victim.model, images
    while model is not victim.undefended and hasattr(model, "transformation"):
        changed = keras.ops.convert_to_numpy(model.transformation(changed, training=False))
        model = model.network
    if changed is images:
        return None
    return 255 * float(np.abs(changed - images).mean(dtype=np.float64))


def _of_logits(logits: NDArray[np.float32], scale: float, right: NDArray[np.bool_]) -> Figures:
    """What (N, K) finite logits look like, and which of them are right, (N,)."""
    exact = logits.astype(np.float64)
    ranked = np.sort(exact, axis=1)
    powers = np.exp(exact - ranked[:, -1:])
    top = 1 / powers.sum(axis=1)
    rest = (powers.sum(axis=1) - 1) * top
    sums_to_one = (exact >= 0).all(axis=1) & (np.abs(exact.sum(axis=1) - 1) < 1e-3)
    tied = ranked[:, -1] - ranked[:, -2] <= metrics.blur(logits, scale)
    return {
        "constant": float((logits == logits[0]).all()),
        "probabilities": float(sums_to_one.mean()),
        "logit_size": float(np.median(np.abs(exact).max(axis=1))),
        "logit_spread": float(np.median(ranked[:, -1] - ranked[:, 0])),
        "top_probability": float(np.median(top)),
        "saturated": float((rest[right] < _CERTAIN).mean()) if right.any() else None,
        "ties": float(tied.mean()),
    }


def _of_calls(victim: Victim, images: Images, logits: NDArray[np.float32]) -> Figures:
    """How answers differ between calls that ought to answer the same."""
    again = [victim.logits(images) for _ in range(_CALLS - 1)]
    network = victim.network
    alone = np.concatenate([network.logits(images[n : n + 1], batch_size=1) for n in range(len(images))])
    found: Figures = {}
    for name, others in (("draws", again), ("batch", [alone])):
        compared = [_compared(logits, other) for other in others]
        classes = np.stack([other.argmax(axis=1) for other in (logits, *others)])
        found[f"{name}_changed"] = float((classes != classes[0]).any(axis=0).mean())
        found[f"{name}_spread"] = max(compared)
    difference = inference.difference(victim.model, images)
    return {
        **found,
        "inference_changed": difference.share_changed,
        "inference_spread": min(difference.relative, float(np.finfo(np.float32).max)),
    }


def _compared(logits: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference of a logit, as a share of the logits' median spread."""
    spread = float(np.median(logits.max(axis=1) - logits.min(axis=1)))
    largest = float(np.abs(logits.astype(np.float64) - other).max())
    return largest / spread if spread else float(largest > 0)


def _of_gradients(victim: Victim, images: Images, labels: NDArray[np.int32]) -> Figures:
    """What the margin's gradients at rightly answered images say."""
    network = victim.network
    margin = partial(_margin, victim, network)
    try:
        values, gradients, halves = margin(images, labels)
    except NoGradientError:
        return {"zero_gradients": 1.0}
    sound = np.isfinite(gradients).all(axis=(1, 2, 3))
    zero = sound & ~gradients.any(axis=(1, 2, 3))
    found: Figures = {
        "zero_gradients": float(zero.mean()),
        "non_finite_gradients": float((~sound).mean()),
    }
    rows = np.flatnonzero(sound & ~zero)
    if not len(rows):
        return found
    images, labels, values, gradients = images[rows], labels[rows], values[rows], gradients[rows]
    logits = victim.logits(images)
    spread = np.median(logits.max(axis=1) - logits.min(axis=1))
    hair = np.float32(_HAIR) * np.random.default_rng(0).choice(np.array([-1, 1], np.float32), images.shape)
    beside = margin(np.clip(images + hair, 0, 1), labels)[1]
    # The best of several: what a defence rounds away it may let through at twice the size.
    gains = [_gain(margin, images, labels, values, gradients, step) for step in _STEPS]
    found |= {
        "gradient_size": float(np.median(L2.dual(gradients)) / spread) if spread else None,
        "gradient_gain": max((gain for gain in gains if gain is not None), default=None),
        "gradient_agreement": float(np.median(_cosines(gradients, beside))),
    }
    if victim.randomised:
        first, second = (half[rows] for half in halves)
        found["eot_agreement"] = float(np.median(_cosines(first, second)))
    return found


def _gain(
    margin: Margin,
    images: Images,
    labels: NDArray[np.int32],
    values: NDArray[np.float64],
    gradients: Images,
    step: float,
) -> float | None:
    """The median rise of margins (N,) along gradients (N, H, W, C), per rise that they promise."""
    stepped = np.clip(images + np.float32(step) * LINF.direction(gradients), 0, 1)
    promised = np.einsum("nhwc,nhwc->n", gradients, stepped - images, dtype=np.float64)
    going = promised > 0
    if not going.any():
        return None
    rise = margin(stepped, labels)[0] - values
    return _kept_median(rise[going] / promised[going])


def _margin(
    victim: Victim, network: Network, images: Images, labels: NDArray[np.int32]
) -> tuple[NDArray[np.float64], Images, tuple[Images, Images]]:
    """The margins (N,), their gradients, and the mean gradients of either half of the draws.

    Of a randomised victim, means over draws that are the same in every call: what differs then is the image.
    """
    draws = DRAWS if victim.randomised else 1
    values, parts = np.zeros(len(images)), []
    for draw in range(draws):
        network.reseed(_PROBING, draw)
        _, value, gradient = network.gradients(images, labels, loss="margin")
        values += value.astype(np.float64) / draws
        parts.append(gradient)
    halves = [np.mean(parts[start::2], axis=0) for start in range(min(draws, 2))]
    return values, np.mean(parts, axis=0), (halves[0], halves[-1])


_PROBING = 3  # key of the draws


def _of_attacks(victim: Victim, images: Images, labels: NDArray[np.integer]) -> Figures:
    """What shares of rightly answered images small attacks leave, and larger ones in the whole box."""
    run = partial(_left, victim, images, labels)
    found: Figures = {}
    for name in ATTACKS:
        config = dict(_CONFIGS[name])
        if name == "square" and victim.randomised:
            config["queries"] = _DRAWN_QUERIES
        broken = run(config, EPSILONS)
        found |= {f"{name}@{level}": float(1 - share.mean()) for level, share in enumerate(broken)}
    whole = [run(config, (1.0,))[0] for config in _WHOLE_BOX]
    found["robust_at_1"] = float(1 - np.any(whole, axis=0).mean())
    return found


def _left(
    victim: Victim,
    images: Images,
    labels: NDArray[np.integer],
    config: dict[str, Any],
    epsilons: tuple[float, ...],
) -> NDArray[np.bool_]:
    """Which images an attack breaks, (E, N)."""
    attack = build(config)
    return attack(victim.model, images, labels, epsilons, clean_correct=np.ones(len(images), bool)).success


def _cosines(one: Images, other: Images) -> NDArray[np.float64]:
    """Between gradients (N, H, W, C), pair by pair; 0 where one of them is 0 or not finite."""
    usable = np.isfinite(one + other).all(axis=(1, 2, 3), keepdims=True)
    a, b = (L2.direction(np.where(usable, each, 0)) for each in (one, other))
    cosines: NDArray[np.float64] = np.einsum("nhwc,nhwc->n", a, b, dtype=np.float64)
    return cosines


def _kept_median(gains: NDArray[np.float64]) -> float:
    """The median, within what JSON and SQL hold."""
    return float(np.clip(np.median(gains), -1e300, 1e300))
