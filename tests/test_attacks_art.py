"""A second opinion: the Adversarial Robustness Toolbox's, on trained networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.support.models import digits_cnn, robust_digits_cnn
from workers.attacks import build
from workers.norms import L2

pytestmark = pytest.mark.tf

ANY = 8.0  # the diagonal of an 8 by 8 image


def wrapped(model):
    from art.estimators.classification import TensorFlowV2Classifier

    return TensorFlowV2Classifier(
        model=model,
        nb_classes=10,
        input_shape=(8, 8, 1),
        loss_object=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        clip_values=(0.0, 1.0),
    )


@pytest.fixture(scope="module")
def classifier():
    return wrapped(digits_cnn().model)


def their_attack(name, classifier):
    from art.attacks.evasion import CarliniL2Method, DeepFool

    if name == "deepfool":
        return DeepFool(classifier, max_iter=50, epsilon=0.02, batch_size=40, verbose=False)
    return CarliniL2Method(classifier, max_iter=10, binary_search_steps=5, batch_size=40, verbose=False)


@pytest.mark.parametrize("name", ["deepfool", "carlini_wagner"])
def test_ours_are_nearer_and_fail_less(name, classifier):
    digits = digits_cnn()
    n = 40 if name == "deepfool" else 12  # theirs is slow
    images, labels = digits.images[:n], digits.labels[:n]
    result = build({"name": name, "norm": "l2"})(digits.model, images, labels, [ANY])
    correct = result.clean_correct
    theirs = their_attack(name, classifier).generate(
        images, y=np.eye(10)[labels] if "wagner" in name else None
    )
    fooled = np.argmax(digits.model(theirs, training=False), axis=1) != labels
    distance = np.where(fooled, L2.distance(images, theirs), np.inf)[correct]
    assert result.success[0, correct].all() and fooled[correct].mean() > 0.5
    assert np.median(result.distance[0, correct]) <= 1.01 * np.median(distance)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.25), ("l2", 1.2)])
def test_apgd_is_no_weaker_on_a_robust_network(norm, epsilon):
    from art.attacks.evasion import AutoProjectedGradientDescent

    model, images, labels = robust_digits_cnn(norm)
    images, labels = images[:100], labels[:100]
    theirs = AutoProjectedGradientDescent(
        wrapped(model),
        norm=np.inf if norm == "linf" else 2,
        eps=epsilon,
        eps_step=2 * epsilon,
        batch_size=100,
        nb_random_init=2,  # one more than ours
        verbose=False,
    ).generate(images, y=np.eye(10)[labels])
    fooled = np.argmax(model(theirs, training=False), axis=1) != labels
    result = build({"name": "apgd", "norm": norm})(model, images, labels, [epsilon])
    robust = (result.clean_correct & ~fooled).sum()
    assert 5 < robust < 60, "the case can tell attacks apart"
    assert (result.clean_correct & ~result.success[0]).sum() <= robust + 1
