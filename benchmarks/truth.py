"""The truth about a victim of the zoo: the strongest attack of somebody who knows what is wrong with it.

Written apart from the attacks of this project, which it is to judge: projected gradient ascent on what the
attacker differentiates, from several starts, on every loss that has helped somebody; and every image that
comes by is shown to the victim itself. What fools it once counts; where answers are random, a last vote on
the best image of each example does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Judge = Callable[[Images], NDArray[np.bool_]]

BATCH = 256
STEPS = 50
EVERY = 5
"""Steps from one look at what the victim says to the next."""

LOOK_DRAWS, CONFIRM_DRAWS, VERDICT_DRAWS = 20, 60, 200
"""Answers that are asked for where they are random: of every image that comes by, of one that most of those
get wrong, and of each example's best in the end, which decides: among many images some are lucky twice."""

RANDOM_STARTS = 3
"""Of `LOSSES`, where each gradient is many."""

CLEAR = 0.65
"""The share of `CONFIRM_DRAWS` that ends the search on an example."""

LOSSES = ("margin", "cross_entropy", "margin", "cross_entropy", 1, 2, 3)
"""A start each, the first at the image itself; a number: towards the class of that rank."""


def judge(model: Any, labels: NDArray[np.int64], *, together: bool) -> Callable[..., NDArray[np.float64]]:
    """A function of images (N, H, W, C), their rows, and a number of votes, that says which share of so many
    answers is wrong, (N,): the model called as its author calls it. A tie with the label is no wrong answer.
    """
    import tensorflow as tf

    call = tf.function(lambda images: model(images), autograph=False, reduce_retracing=True)

    def misses(images: Images, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        size = len(images) if together else BATCH
        parts = [call(tf.constant(images[at : at + size])) for at in range(0, len(images), size)]
        answers = np.concatenate([part.numpy() for part in parts]).argmax(axis=1)
        return np.asarray(answers != labels[rows])

    def share(images: Images, rows: NDArray[np.int64], votes: int) -> NDArray[np.float64]:
        return np.asarray(np.mean([misses(images, rows) for _ in range(votes)], axis=0))

    return share


def robust_accuracy(
    model: Any,
    straight: Any,
    images: Images,
    labels: NDArray[np.int64],
    epsilons: Sequence[float],
    *,
    draws: int = 1,
    together: bool = False,
) -> tuple[float, dict[float, float]]:
    """Clean accuracy, and the share of images that are right and stay so at each Linf epsilon.

    `straight` is what is differentiated, averaged over `draws`; `model` is what has to be fooled. With
    `together`, all images are asked for at once, always.
    """
    wrong = judge(model, labels, together=together)
    everyone = np.arange(len(images))
    right = wrong(images, everyone, VERDICT_DRAWS if draws > 1 else 1) <= 0.5
    best, best_share = images.copy(), np.zeros(len(images))
    ascend = _ascent(straight, draws)
    found: dict[float, float] = {}
    standing = right.copy()
    for epsilon in sorted(epsilons):  # what is broken within less is broken
        for start, loss in enumerate(LOSSES[: RANDOM_STARTS if draws > 1 else None]):
            rows = everyone if together else np.flatnonzero(standing)
            if not standing.any():
                break

            def look(tried: Images, rows: NDArray[np.int64] = rows) -> NDArray[np.bool_]:
                if draws == 1:
                    standing[rows] &= wrong(tried, rows, 1) <= 0.5
                    return standing[rows]
                promising = np.flatnonzero(wrong(tried, rows, LOOK_DRAWS) > 0.5)
                if len(promising):
                    at = rows[promising]
                    share = wrong(tried[promising], at, CONFIRM_DRAWS)
                    better = share > best_share[at]
                    best[at[better]], best_share[at[better]] = tried[promising][better], share[better]
                    standing[at[share >= CLEAR]] = False
                return standing[rows]

            ascend(images[rows], labels[rows], epsilon, loss, start, look, together=together)
        if draws > 1:  # an example that is still standing may have been broken, though never clearly
            verdict = wrong(best, everyone, VERDICT_DRAWS) <= 0.5
            found[epsilon] = float((right & verdict).mean())
        else:
            found[epsilon] = float(standing.mean())
    return float(right.mean()), found


def _ascent(straight: Any, draws: int) -> Callable[..., None]:
    import tensorflow as tf

    def value(logits: Any, labels: Any, target: Any, loss: Any) -> Any:
        own = tf.gather(logits, labels, axis=1, batch_dims=1)
        if loss == "cross_entropy":
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if loss == "margin":
            others = tf.where(tf.one_hot(labels, logits.shape[1]) > 0, -np.inf, logits)
            return tf.reduce_max(others, axis=1) - own
        return tf.gather(logits, target, axis=1, batch_dims=1) - own

    def gradient(images: Any, labels: Any, target: Any, loss: Any) -> Any:
        # The sum over draws: expectation over transformation (Athalye et al., arXiv:1707.07397).
        labels, target = tf.repeat(labels, draws), tf.repeat(target, draws)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = straight(tf.repeat(images, draws, axis=0))
            total = tf.reduce_sum(value(logits, labels, target, loss))
        return tape.gradient(total, images)

    traced = {
        loss: tf.function(
            lambda *given, loss=loss: gradient(*given, loss), autograph=False, reduce_retracing=True
        )
        for loss in ("margin", "cross_entropy", "difference")
    }
    ranked = tf.function(lambda images: straight(images), autograph=False, reduce_retracing=True)

    def ascend(
        images: Images,
        labels: NDArray[np.int64],
        epsilon: float,
        loss: str | int,
        start: int,
        look: Callable[[Images], NDArray[np.bool_]],
        *,
        together: bool,
    ) -> None:
        """One start: `look` is shown the images every few steps, and says which are still standing."""
        size = len(images) if together else BATCH
        target = labels
        if isinstance(loss, int):
            logits = np.concatenate(
                [ranked(tf.constant(images[at : at + size])) for at in range(0, len(images), size)]
            )
            logits[np.arange(len(labels)), labels] = np.inf
            target = np.argsort(-logits, axis=1)[:, loss]
        step = traced["difference" if isinstance(loss, int) else loss]
        noise = np.random.default_rng(start).uniform(-epsilon, epsilon, images.shape)
        tried = np.clip(images + noise * bool(start), 0, 1).astype(np.float32)
        going = np.ones(len(images), bool)
        for number in range(STEPS):
            length = epsilon * (0.02 + 0.48 * (1 + np.cos(np.pi * number / STEPS)) / 2)
            rows = np.arange(len(images)) if together else np.flatnonzero(going)
            for at in range(0, len(rows), size):
                part = rows[at : at + size]
                given = [tf.constant(each) for each in (tried[part], labels[part], target[part])]
                moved = tried[part] + length * np.sign(step(*given).numpy())
                moved = np.clip(moved, images[part] - epsilon, images[part] + epsilon)
                tried[part] = np.clip(moved, 0, 1)
            if number % EVERY == EVERY - 1:
                going = look(tried)
                if not going.any():
                    return

    return ascend
