"""FGSM, BIM and PGD against Foolbox on trained networks, and against closed forms on affine models."""

from __future__ import annotations

from typing import NamedTuple

import eagerpy as ep
import foolbox
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.models import VICTIMS, Trained, affine, digits_cnn, trained
from workers.attacks import AttackResult, build
from workers.attacks.active_set import ActiveSet
from workers.losses import SATURATED
from workers.network import network_for

pytestmark = pytest.mark.tf

EPSILONS = {"linf": (0.0, 0.02, 0.05, 0.1, 0.2), "l2": (0.0, 0.25, 0.5, 1.0, 2.0)}
OPTIONS = {
    "fgsm": {},
    "bim": {"steps": 7, "relative_step_size": 0.3, "like": "foolbox"},
    "pgd": {"steps": 7, "relative_step_size": 0.3, "like": "foolbox"},
}
FOOLBOX = {
    ("fgsm", "linf"): foolbox.attacks.LinfFastGradientAttack,
    ("fgsm", "l2"): foolbox.attacks.L2FastGradientAttack,
    ("bim", "linf"): foolbox.attacks.LinfBasicIterativeAttack,
    ("bim", "l2"): foolbox.attacks.L2BasicIterativeAttack,
    ("pgd", "linf"): foolbox.attacks.LinfProjectedGradientDescentAttack,
    ("pgd", "l2"): foolbox.attacks.L2ProjectedGradientDescentAttack,
}


def foolbox_attack(name, norm, starts):
    """With our random starts: `starts` maps an epsilon to images (N, H, W, C)."""
    attack = FOOLBOX[name, norm]
    if name == "fgsm":
        return attack(random_start=False)
    if name == "bim":
        return attack(steps=7, rel_stepsize=0.3, random_start=False)

    class FromOurStarts(attack):
        def get_random_start(self, x0, epsilon):
            return ep.astensor(tf.constant(starts[epsilon]))

    return FromOurStarts(steps=7, rel_stepsize=0.3, random_start=True)


def record_starts(monkeypatch, images, epsilons):
    """What `ActiveSet.random_start` gives from now on, by epsilon; clean images where nothing is attacked."""
    starts = {epsilon: images.copy() for epsilon in epsilons}
    random_start = ActiveSet.random_start

    def recorded(rows, stream=0):
        drawn = random_start(rows, stream)
        for level, example, image in zip(rows.level, rows.example, drawn, strict=True):
            starts[epsilons[level]][example] = image
        return drawn

    monkeypatch.setattr(ActiveSet, "random_start", recorded)
    return starts


class Case(NamedTuple):
    victim: Trained
    name: str
    exact: AttackResult  # the whole budget
    early: AttackResult  # an example ends at its first success
    images: np.ndarray  # Foolbox's, (E, N, H, W, C)
    success: np.ndarray  # Foolbox's, (E, N)


@pytest.fixture(scope="module", params=VICTIMS)
def victim(request):
    return trained(request.param)


@pytest.fixture(scope="module", params=FOOLBOX, ids=lambda key: "-".join(key))
def case(request, victim):
    name, norm = request.param
    epsilons = EPSILONS[norm]
    attack = build({"name": name, "norm": norm, "like": "foolbox", **OPTIONS[name]})
    early = build({"name": name, "norm": norm, **OPTIONS[name]})(*victim, epsilons)
    with pytest.MonkeyPatch.context() as patch:
        starts = record_starts(patch, victim.images, epsilons)
        exact = attack(*victim, epsilons, choose="last")
    model = foolbox.TensorFlowModel(victim.model, bounds=(0, 1))
    inputs = tf.constant(victim.images), tf.constant(victim.labels)
    _, images, success = foolbox_attack(name, norm, starts)(model, *inputs, epsilons=list(epsilons))
    return Case(victim, name, exact, early, np.stack(images), success.numpy())


def test_the_networks_are_worth_attacking(victim):
    correct = np.argmax(victim.model(victim.images, training=False), axis=1) == victim.labels
    assert correct.mean() > (0.35 if victim.images.shape[-1] == 3 else 0.9)


def saturated(victim):
    """Where the model is so sure of the label that Foolbox's float32 gradient is mostly rounding error."""
    logits = victim.model(victim.images, training=False)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(victim.labels, tf.cast(logits, tf.float64))
    return loss.numpy() < SATURATED


def test_where_the_model_is_sure_gradients_are_those_of_float64():
    digits = digits_cnn()
    rows = np.flatnonzero(saturated(digits))
    images, labels = digits.images[rows], digits.labels[rows].astype(np.int32)
    _, _, found = network_for(digits.model, (8, 8, 1)).gradients(images, labels, loss="raw_cross_entropy")
    precise = keras.models.clone_model(
        digits.model,
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float64"}),
    )
    precise.set_weights(digits.model.get_weights())
    watched = tf.Variable(tf.cast(images, tf.float64))
    with tf.GradientTape() as tape:
        logits = precise(watched, training=False)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    expected = tape.gradient(loss, watched).numpy()

    def unit(gradients):
        flat = gradients.reshape(len(gradients), -1).astype(np.float64)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    assert len(rows) > 20
    np.testing.assert_allclose(unit(found), unit(expected), atol=2e-4)


def test_images_equal_foolbox(case):
    attacked = case.exact.clean_correct & ~saturated(case.victim)
    assert attacked.sum() > 0.75 * case.exact.clean_correct.sum()
    difference = np.abs(case.exact.images - case.images)[:, attacked].max(axis=(2, 3, 4))
    if case.name == "fgsm":
        assert (difference < 2e-6).mean() >= 0.998
    else:
        # An eager gradient's last bits differ from a traced one's. Where a component is all but zero its
        # sign flips, and every later iterate with it: a few whole examples differ, the rest not at all.
        assert (difference < 1e-3).mean() >= 0.99


def test_robust_accuracy_is_at_most_foolbox(case):
    robust = case.early.robust_accuracy
    # Where the model is so sure that Foolbox's gradient is rounding error, that error may happen to help.
    sound = ~saturated(case.victim)
    ours = (case.early.clean_correct & ~case.early.success)[:, sound].sum(axis=1)
    # One example may owe its success to the last bits of a gradient, or to our margin of 1e-4.
    assert (ours <= (~case.success)[:, sound].sum(axis=1) + 1).all()
    assert robust[0] == case.early.clean_correct.mean()
    assert robust[-1] < 0.5 * robust[0]


WEIGHTS = np.array([[3.0, -1.0], [-2.0, 1.0], [0.5, -0.25], [1.0, -3.0], [-1.0, 2.0], [0.0, 1.0]])
NORMAL = WEIGHTS[:, 1] - WEIGHTS[:, 0]  # logit 1 - logit 0 = NORMAL · x + offset


def affine_case(norm, margins):
    """A two-class model and one image for each margin (logits) by which class 0 leads."""
    dual = np.abs(NORMAL).sum() if norm == "linf" else np.linalg.norm(NORMAL)
    spread = np.random.default_rng(3).uniform(-0.05, 0.05, (len(margins), 6))
    points = 0.5 + spread - np.outer(spread @ NORMAL + margins, NORMAL) / (NORMAL @ NORMAL)
    model = affine(WEIGHTS, [0.0, -0.5 * NORMAL.sum()])
    images = points.reshape(-1, 2, 3, 1).astype(np.float32)
    unit = np.sign(NORMAL) if norm == "linf" else NORMAL / dual
    return model, images, np.zeros(len(margins), int), np.array(margins) / dual, unit.reshape(2, 3, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_success_exactly_beyond_the_hyperplane(name, norm):
    model, images, labels, boundary, unit = affine_case(norm, [0.2, 0.5, 0.9, 1.3])
    epsilons = np.sort(np.concatenate([boundary * 0.99, boundary * 1.01]))
    result = build({"name": name, "norm": norm})(model, images, labels, epsilons, choose="last")
    assert np.array_equal(result.success, epsilons[:, None] > boundary)
    # The optimum of an affine loss over a ball: as far as the ball goes, straight at the hyperplane.
    optimum = images + epsilons[:, None, None, None, None] * unit
    np.testing.assert_allclose(result.images, optimum, atol=1e-6)
    reached = np.broadcast_to(epsilons[:, None], result.success.shape)
    np.testing.assert_allclose(result.distance, np.where(result.success, reached, np.inf), rtol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bim_keeps_the_first_iterate_beyond_the_hyperplane(norm):
    model, images, labels, boundary, _ = affine_case(norm, [0.2, 0.5, 0.9, 1.3])
    step = boundary[2] / 3.5
    attack = build({"name": "bim", "norm": norm, "steps": 20, "step_size": step})
    result = attack(model, images, labels, [10 * step])
    np.testing.assert_allclose(result.distance[0], step * np.ceil(boundary / step), rtol=1e-5)


def test_the_box_is_the_optimum_when_it_binds():
    model = affine([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])
    images = np.array([[1.0, 0.0], [0.75, 0.5]], np.float32).reshape(2, 1, 2, 1)
    for name in ("fgsm", "bim"):
        result = build({"name": name})(model, images, np.zeros(2, int), [0.375], choose="last")
        np.testing.assert_allclose(
            result.images[0].reshape(2, 2), [[0.625, 0.375], [0.375, 0.875]], atol=1e-6
        )
        # Class 1 everywhere: class 0 is only ever pushed away from the box's corner.
        result = build({"name": name})(model, images[:, :, ::-1], np.ones(2, int), [0.8], choose="last")
        np.testing.assert_allclose(result.images[0].reshape(2, 2), [[0.8, 0.2], [1.0, 0.0]], atol=1e-6)
