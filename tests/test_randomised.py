"""Models that answer at random: no draw that happens to be lucky decides a number."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.support.models import digits_cnn
from workers import metrics
from workers.answers import fresh_draws, summarise
from workers.attacks import build
from workers.flags import Flag
from workers.network import network_for

pytestmark = pytest.mark.tf

EPSILONS = [0.1, 0.15]
COUNT = 120


@cache
def noisy(stddev: float = 0.2) -> Any:
    """The digits' CNN behind Gaussian noise that is drawn anew in every call."""
    import keras

    class Noise(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(1)

        def call(self, images: Any) -> Any:
            shape = keras.ops.shape(images)
            return images + keras.random.normal(shape, stddev=stddev, seed=self.seed_generator)

    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, digits_cnn().model(Noise()(inputs)))


def attacked(**config: Any) -> Any:
    digits = digits_cnn()
    return build(config)(noisy(), digits.images[:COUNT], digits.labels[:COUNT], EPSILONS)


@cache
def bim(steps: int) -> Any:
    return attacked(name="bim", steps=steps)


def test_more_steps_do_not_make_it_more_robust() -> None:
    """By one lucky draw an attack ended early, and one fresh draw judged it: the more steps, the luckier."""
    few, many = bim(10).robust_accuracy, bim(30).robust_accuracy
    assert (many <= few + 0.03).all()
    truth = attacked(name="bim", steps=20, eot=60).robust_accuracy
    assert (np.abs(many - truth) <= 0.05).all()


def test_claims_hold_in_draws_that_no_attack_has_seen() -> None:
    digits, result = digits_cnn(), bim(10)
    network = network_for(noisy(), (8, 8, 1))
    shares = []
    for level in range(len(EPSILONS)):
        rows = np.flatnonzero(result.success[level])
        labels = digits.labels[rows]
        draws = fresh_draws(network, result.images[level, rows], 99)
        shares.append(summarise(draws, lambda logits, labels=labels: metrics.fools(logits, labels)).share)
    share = np.concatenate(shares)
    assert (share > 0.5).mean() > 0.85 and share.mean() > 0.7


def test_it_is_found_by_looking_and_said() -> None:
    result = bim(10)
    assert result.flags[Flag.RANDOMISED].all()
    lost = result.flags.get(Flag.LOST_CLAIMS, np.zeros(COUNT, bool))
    assert not (lost & result.success.all(axis=0)).any()
    assert (result.gradient_calls[result.clean_correct] % 20 == 0).all()


def test_the_same_seed_draws_the_same_whatever_came_before() -> None:
    digits = digits_cnn()
    attack = build({"name": "bim", "steps": 3})
    first = attack(noisy(), digits.images[:20], digits.labels[:20], [0.1], seed=3)
    attack(noisy(), digits.images[20:30], digits.labels[20:30], [0.1])
    again = attack(noisy(), digits.images[:20], digits.labels[:20], [0.1], seed=3)
    other = attack(noisy(), digits.images[:20], digits.labels[:20], [0.1], seed=4)
    assert np.array_equal(first.images, again.images) and np.array_equal(first.success, again.success)
    assert not np.array_equal(first.images, other.images)


def test_nearest_images_win_most_draws() -> None:
    digits = digits_cnn()
    result = build({"name": "ddn", "steps": 20})(noisy(), digits.images[:40], digits.labels[:40], [10.0])
    assert result.success[0, result.clean_correct].mean() > 0.95


def test_draws_that_hardly_differ_are_no_randomness() -> None:
    digits = digits_cnn()
    result = build({"name": "fgsm"})(noisy(1e-7), digits.images[:10], digits.labels[:10], [0.1])
    assert Flag.RANDOMISED not in result.flags and (result.gradient_calls <= 1).all()


def test_answers_are_those_of_most_draws() -> None:
    draws = np.array([[[2.0, 0], [0, 1]], [[0, 2.0], [0, 3]], [[1.0, 0], [np.nan, 1]]], np.float32)
    found = summarise(iter(draws), lambda logits: metrics.favours(logits, np.array([0, 0])))
    assert found.label.tolist() == [0, 1] and found.finite.tolist() == [True, False]
    np.testing.assert_allclose(found.share, [2 / 3, 0])
    expected = np.mean([1 / (1 + np.exp(-gap)) for gap in (2, -2, 1)])
    np.testing.assert_allclose(found.confidence[0], expected, rtol=1e-6)
    assert found.mostly.tolist() == [True, False]
