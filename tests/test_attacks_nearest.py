"""Carlini & Wagner, DDN and FMN: against Foolbox on trained networks, closed forms, hopeless models."""

from __future__ import annotations

from typing import NamedTuple

import foolbox
import numpy as np
import pydantic
import pytest
import tensorflow as tf

from tests.support.models import SCALES, VICTIMS, Trained, affine, trained
from workers import metrics
from workers import network as network_module
from workers.attacks import build
from workers.norms import NORMS

pytestmark = pytest.mark.tf

N = 200  # one example is half a point
EPSILONS = {"l2": np.linspace(0.1, 1.2, 12), "linf": np.linspace(0.02, 0.24, 12)}
CASES = {
    "carlini_wagner-l2": {"binary_search_steps": 3, "steps": 40},
    "ddn-l2": {},
    "fmn-l2": {},
    "fmn-linf": {},
}


def config(case, **options):
    name, norm = case.split("-")
    return {"name": name, "norm": norm, **CASES[case], **options}


def foolbox_attack(case):
    if case == "carlini_wagner-l2":
        # A step size and a first constant with which this budget is enough for it to succeed everywhere.
        return foolbox.attacks.L2CarliniWagnerAttack(stepsize=0.1, initial_const=0.1, **CASES[case])
    return {
        "ddn-l2": foolbox.attacks.DDNAttack,
        "fmn-l2": foolbox.attacks.L2FMNAttack,
        "fmn-linf": foolbox.attacks.LInfFMNAttack,
    }[case]()


def right_ones(name):
    """The model, and images that it gets right."""
    model, images, labels = trained(name)
    right = np.argmax(model(images, training=False), axis=1) == labels
    return Trained(model, images[right][:N], labels[right][:N])


@pytest.fixture(scope="module")
def digits():
    return right_ones("digits")


class Oracle(NamedTuple):
    case: str
    victim: Trained
    epsilons: np.ndarray
    distance: np.ndarray  # Foolbox's, (N,), infinite where it failed
    clipped: np.ndarray  # its success (E, N) after clipping


@pytest.fixture(scope="module", params=VICTIMS)
def victim(request):
    return request.param


@pytest.fixture(scope="module", params=CASES)
def oracle(request, victim):
    model, images, labels = right_ones(victim)
    norm = request.param.split("-")[1]
    epsilons = SCALES[victim, norm] * EPSILONS[norm]
    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    attack = foolbox_attack(request.param)
    raw, _, clipped = attack(wrapped, tf.constant(images), tf.constant(labels), epsilons=list(epsilons))
    found = raw[0].numpy()
    fooled = np.argmax(model(found, training=False), axis=1) != labels
    distance = np.where(fooled, NORMS[norm].distance(images, found), np.inf)
    assert fooled.mean() > 0.99, "an oracle that fails proves nothing"
    return Oracle(request.param, Trained(model, images, labels), epsilons, distance, clipped.numpy())


@pytest.mark.parametrize("refine", [True, False])
def test_no_farther_than_foolbox(oracle, refine):
    case, victim, epsilons, distance, clipped = oracle
    result = build(config(case, refine=refine))(*victim, [*epsilons, 100.0])
    assert result.success[-1].mean() >= np.isfinite(distance).mean()
    assert np.median(result.distance[-1]) <= 1.01 * np.median(distance)
    if refine:  # as it is by default: an example less at most all along, and two at one epsilon
        ahead = result.success[:-1].mean(axis=1) - clipped.mean(axis=1)
        assert ahead.mean() >= -1 / len(victim.images)
        assert (ahead >= -2 / len(victim.images) - 1e-9).all()
    assert 0 < result.success[0].mean() < 0.5 < result.success[-2].mean(), "the curve falls within the range"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("targeted", [False, True])
def test_every_success_is_real(case, targeted, digits):
    model, images, labels = digits
    images, labels = images[:60], labels[:60]
    epsilons = [0.0, *EPSILONS[case.split("-")[1]][[3, 8]], 100.0]
    targets = (labels + 4) % 10 if targeted else None
    attack = build(config(case, targeted=targeted))
    result = attack(model, images, labels, epsilons, targets=targets)
    for k, epsilon in enumerate(epsilons):
        found, success = result.adversarial(k), result.success[k]
        logits = np.asarray(model(found, training=False))
        fooled = metrics.favours(logits, targets) if targeted else metrics.fools(logits, labels)
        assert fooled[success].all()
        distance = NORMS[attack.norm].distance(images, found)
        np.testing.assert_allclose(result.distance[k][success], distance[success], rtol=1e-6)
        assert metrics.within(distance, epsilon).all() and np.isinf(result.distance[k][~success]).all()
        assert found.min() >= 0 and found.max() <= 1
    assert not result.success[0].any() and result.success[-1].mean() > 0.95
    assert (result.success[1:] >= result.success[:-1]).all(), "what succeeds at an epsilon does so at larger"
    if targeted:
        nearest = build(config(case))(model, images, labels, [100.0])
        assert np.median(result.distance[-1]) > 1.2 * np.median(nearest.distance[0])


@pytest.mark.parametrize("case", CASES)
def test_the_distance_to_a_hyperplane(case):
    norm = case.split("-")[1]
    generator = np.random.default_rng(5)
    normal = generator.normal(size=24)
    # Grey images, so that no coordinate of the nearest point meets the box.
    images = generator.uniform(0.4, 0.6, (20, 24))
    offset = normal.sum() / 2 + 1.2
    model = affine(np.stack([np.zeros(24), normal], axis=1), [0.0, -offset])
    lead = offset - images @ normal
    expected = lead / (np.abs(normal).sum() if norm == "linf" else np.linalg.norm(normal))
    assert (lead > 0).all() and expected.max() / expected.min() > 1.5
    inputs = images.reshape(20, 2, 4, 3).astype(np.float32), np.zeros(20, int), [10.0]
    result = build({"name": case.split("-")[0], "norm": norm})(model, *inputs)
    tolerance = 0.03 if case.startswith("fmn") else 0.01
    assert (result.distance[0] >= expected * (1 - 1e-4)).all()
    assert (result.distance[0] <= expected * (1 + tolerance)).all()


HOPELESS = {
    "constant": lambda: affine(np.zeros((12, 3)), [2.0, 1.0, 0.0]),
    "out of reach": lambda: affine(np.eye(12)[:, :3], [5.0, 0.0, 0.0]),
    "flat": lambda: (
        lambda images: (
            tf.nn.relu(tf.reshape(images, (-1, 12))[:, :1] - 2.0) * [[-1.0, 1.0, 0.0]] + [1.0, 0.0, 0.0]
        )
    ),
}


@pytest.mark.parametrize("model", HOPELESS)
@pytest.mark.parametrize("case", CASES)
def test_a_hopeless_search_ends_and_says_so(case, model):
    images = np.random.default_rng(0).random((5, 2, 3, 2), dtype=np.float32)
    result = build(config(case, steps=30))(HOPELESS[model](), images, np.zeros(5, int), [0.5, 50.0])
    assert result.clean_correct.all() and not result.success.any() and np.isinf(result.distance).all()
    if model == "out of reach":
        assert not result.flags and (result.gradient_calls > 1).all()
    else:
        assert result.flags["zero_gradients"].all() and (result.gradient_calls == 1).all()


@pytest.mark.parametrize("case", CASES)
def test_an_example_does_not_know_its_batch(case, digits, monkeypatch):
    """Batches of one size, so that the sums are the same: all that is left to differ is control flow."""
    model, images, labels = digits
    monkeypatch.setattr(network_module, "BATCH_SIZES", {"CPU": (8,), "GPU": (8,)})

    def wrapper(inputs):
        return model(inputs, training=False)

    images, labels, epsilons = images[:24], labels[:24], EPSILONS[case.split("-")[1]]
    attack = build(config(case, steps=40))
    whole = attack(wrapper, images, labels, epsilons, example_indices=np.arange(24))
    chosen = np.array([17, 3, 8, 20, 5])
    part = attack(wrapper, images[chosen], labels[chosen], epsilons[-1:], example_indices=chosen)
    np.testing.assert_array_equal(part.gradient_calls, whole.gradient_calls[chosen])
    np.testing.assert_allclose(part.distance[0], whole.distance[-1, chosen], rtol=1e-5)
    if attack.name == "carlini_wagner":
        assert len(set(whole.gradient_calls)) > 5, "examples end when they are done, not together"


def test_confidence_is_kept(digits):
    model, images, labels = digits
    images, labels = images[:40], labels[:40]

    def run(**options):
        return build(config("carlini_wagner-l2", **options))(model, images, labels, [100.0])

    plain, confident, raw = run(), run(confidence=3.0), run(confidence=3.0, refine=False)
    for result in (confident, raw):
        logits = np.array(model(result.adversarial(0), training=False))
        logits[np.arange(40), labels] += 3.0 - 1e-3
        assert result.success.all() and metrics.fools(logits, labels).all()
    assert (confident.distance <= raw.distance + 1e-6).all()
    assert np.median(confident.distance) > 1.15 * np.median(plain.distance)


def test_the_targets_margin_keeps_the_confidence(digits):
    model, images, labels = digits
    images, labels, targets = images[:30], labels[:30], (labels[:30] + 1) % 10
    attack = build(config("carlini_wagner-l2", confidence=2.0, targeted=True, steps=100))
    result = attack(model, images, labels, [100.0], targets=targets)
    logits = np.array(model(result.adversarial(0), training=False))
    logits[np.arange(30), targets] -= 2.0 - 1e-3
    success = result.success[0]
    assert success.mean() > 0.9 and metrics.favours(logits[success], targets[success]).all()


def test_ending_early_saves_and_loses_little(digits):
    model, images, labels = digits
    images, labels = images[:30], labels[:30]

    def run(abort_early):
        attack = build(config("carlini_wagner-l2", steps=100, abort_early=abort_early))
        return attack(model, images, labels, [100.0])

    early, late = run(True), run(False)
    assert (late.gradient_calls == 1 + 3 * 100).all()
    assert early.gradient_calls.mean() < 0.9 * late.gradient_calls.mean()
    assert np.median(early.distance) <= 1.01 * np.median(late.distance)


def test_more_steps_come_nearer(digits):
    model, images, labels = digits
    arguments = model, images[:30], labels[:30], [100.0]
    for case in CASES:
        few, many = (build(config(case, steps=steps))(*arguments) for steps in (10, 100))
        assert np.median(many.distance) < np.median(few.distance)


def test_options_are_checked():
    assert build({"name": "carlini_wagner"}).norm == build({"name": "ddn"}).norm == "l2"
    for name, wrong in [
        ("carlini_wagner", {"norm": "linf"}),
        ("carlini_wagner", {"confidence": -1.0}),
        ("carlini_wagner", {"initial_const": 0.0}),
        ("carlini_wagner", {"learning_rate": 0.0}),
        ("carlini_wagner", {"binary_search_steps": 0}),
        ("ddn", {"norm": "linf"}),
        ("ddn", {"gamma": 1.0}),
        ("ddn", {"init_epsilon": 0.0}),
        ("fmn", {"norm": "l1"}),
        ("fmn", {"max_step_size": 0.0}),
        ("fmn", {"gamma": 0.0}),
    ]:
        with pytest.raises(pydantic.ValidationError, match=next(iter(wrong))):
            build({"name": name, **wrong})
