"""What holds for every attack: the ball, the box, what is skipped, what is counted, what is refused."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pydantic
import pytest
import tensorflow as tf
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from tests.support.models import affine, digits_cnn, quick
from workers import network as network_module
from workers.attacks import REGISTRY, Attack, build
from workers.norms import LINF

pytestmark = pytest.mark.tf

DIGITS_EPSILONS = (0.02, 0.0, 0.2, 0.05)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["fgsm", "bim"])
def test_how_examples_are_cut_touches_as_few_as_documented(name, norm):
    config = quick(name, norm)
    digits, attack = digits_cnn(), build(config)
    scale = 1 if config["norm"] == "linf" else 8
    epsilons = [scale * e for e in DIGITS_EPSILONS]
    whole = attack(digits.model, digits.images, digits.labels, epsilons)
    order = np.random.default_rng(1).permutation(len(digits.images))
    success, images = np.empty_like(whole.success), np.empty_like(whole.images)
    for part in np.split(order, [1, 8, 41, 41, 170]):
        cut = attack(digits.model, digits.images[part], digits.labels[part], epsilons)
        success[:, part], images[:, part] = cut.success, cut.images
    # sign() may amplify the last bits of a float sum; how many examples that may touch is documented.
    assert (success != whole.success).any(axis=0).mean() <= 0.002
    assert (np.abs(images - whole.images).max(axis=(0, 2, 3, 4)) < 1e-4).mean() >= 0.998
    assert whole.robust_accuracy[0] > 0.3 and whole.robust_accuracy[2] < 0.3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_strongest_image_has_the_highest_loss(norm):
    digits, attack = digits_cnn(), build({"name": "bim", "norm": norm, "steps": 4, "relative_step_size": 0.7})
    model, images, labels = digits.model, digits.images[:60], digits.labels[:60]
    epsilons = [0.1, 0.2] if norm == "linf" else [1.0, 3.0]

    def losses(choose):
        result = attack(model, images, labels, epsilons, choose=choose)
        logits = [model(each, training=False) for each in result.images]
        return np.stack(
            [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, each) for each in logits]
        ), result

    first, _ = losses("first")
    last, _ = losses("last")
    strongest, result = losses("strongest")
    assert (strongest >= np.maximum(first, last) - 1e-4).all()
    assert (strongest > last + 1e-4).any() and (strongest > first + 1e-4).any()
    spent = result.gradient_calls_at[:, result.clean_correct]
    assert (spent.sum(axis=0) == 1 + 2 * 3).all(), "the whole budget, the first gradient shared"


def line_model():
    """One pixel, two classes: class 1 from 0.5 on."""
    return affine([[-10.0, 10.0]], [5.0, -5.0])


def test_decided_rows_are_skipped_and_shared_calls_counted_once():
    images = np.array([0.45, 0.35, 0.05, 0.9], np.float32).reshape(4, 1, 1, 1)
    labels = np.zeros(4, int)  # the last one is wrong from the start
    epsilons = [0.0, 0.1, 0.2]
    attack = build({"name": "bim", "steps": 5, "relative_step_size": 0.2})
    result = attack(line_model(), images, labels, epsilons)
    # Iterates at 0.1: .02 a step, at 0.2: .04 a step; beyond 0.5 an example is decided.
    assert result.success.tolist() == [[False] * 4, [True, False, False, False], [True, True, False, False]]
    # 0.45: .51 is iterate 3 of 0.1, .53 the second of 0.2. 0.35: .45 at best, then .51 is iterate 4.
    assert result.gradient_calls_at.tolist() == [[0] * 4, [1 + 3, 1 + 4, 1 + 4, 0], [2, 4, 4, 0]]
    assert result.forward_calls_at.tolist() == [[1] * 4, [0, 1, 1, 0], [0, 0, 1, 0]]
    assert result.gradient_calls.tolist() == [6, 9, 9, 0]
    known = attack(line_model(), images, labels, epsilons, clean_correct=result.clean_correct)
    assert known.forward_calls_at[0].tolist() == [0] * 4
    assert np.array_equal(known.success, result.success)
    fgsm = build({"name": "fgsm"})(line_model(), images, labels, epsilons)
    assert fgsm.gradient_calls.tolist() == [1, 1, 1, 0]
    assert fgsm.forward_calls_at.tolist() == [[1] * 4, [1, 1, 1, 0], [1, 1, 1, 0]]


def test_nothing_retraces():
    digits = digits_cnn()

    def model(images):  # nobody else's
        return digits.model(images, training=False)

    for config in (quick(name, norm) for name in ("fgsm", "bim", "pgd", "noise") for norm in ("linf", "l2")):
        for n in (1, 7, 33, 200):
            build(config)(model, digits.images[:n], digits.labels[:n], [0.1, 0.2][: 1 + n % 2])
    network = network_module.network_for(model, (8, 8, 1))
    assert network.traces == 2, "logits, and gradients of one loss"


def test_a_model_is_let_go():
    import keras

    model = keras.Sequential([keras.Input((3, 3, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    images = np.full((4, 3, 3, 1), 0.5, np.float32)
    build({"name": "bim"})(model, images, np.zeros(4, int), [0.1], clean_correct=np.ones(4, bool))
    reference = weakref.ref(model)
    network = weakref.ref(network_module.network_for(model, (3, 3, 1)))
    del model
    gc.collect()
    assert reference() is None and network() is None


def test_dropout_and_batch_norm_are_in_inference_mode():
    digits = digits_cnn()
    network = network_module.network_for(digits.model, (8, 8, 1))
    expected = digits.model.predict(digits.images[:50], verbose=0)
    np.testing.assert_allclose(network.logits(digits.images[:50]), expected, atol=1e-4)


def test_out_of_memory_halves_the_batch():
    def hungry(images):
        n = tf.shape(images)[0]
        # More than any address space holds, but only for more than 8 images at a time.
        size = tf.where(n > 8, tf.constant(2**50, tf.int64), tf.constant(1, tf.int64))
        return tf.reshape(images, (-1, 1)) * [[-10.0, 10.0]] + tf.reduce_sum(tf.zeros([size])) + [5.0, -5.0]

    images = np.linspace(0, 0.49, 100, dtype=np.float32).reshape(100, 1, 1, 1)
    labels = np.zeros(100, int)
    result = build({"name": "bim"})(hungry, images, labels, [0.1, 0.3])
    expected = build({"name": "bim"})(line_model(), images, labels, [0.1, 0.3])
    assert np.array_equal(result.success, expected.success) and result.success.any()


# Two pixels, three classes, not linear. Expected images are for these VERSIONs.
VERSIONS = {"fgsm": 3, "bim": 3, "pgd": 2}
GOLDEN = {
    ("fgsm", "linf"): [0.7, 0.0, 0.5, 0.5, 0.4, 0.2, 0.45, 0.0, 0.75, 0.25, 0.15, 0.0],
    ("fgsm", "l2"): [
        *(0.758579, 0.058579, 0.428323, 0.546594, 0.480000, 0.240000),
        *(0.581802, 0.000000, 0.588726, 0.354837, 0.330000, 0.040000),
    ],
    ("bim", "linf"): [
        *(0.700000, 0.000000, 0.500000, 0.500000, 0.500000, 0.200000),
        *(0.480764, 0.000000, 0.750000, 0.250000, 0.500446, 0.000000),
    ],
    ("bim", "l2"): [
        *(0.784582, 0.036664, 0.455667, 0.574430, 0.566538, 0.202819),
        *(0.501152, 0.000000, 0.697418, 0.488910, 0.497847, 0.000000),
    ],
    ("pgd", "linf"): [
        *(0.700000, 0.000000, 0.500000, 0.500000, 0.500000, 0.200000),
        *(0.499537, 0.000000, 0.750000, 0.250000, 0.498701, 0.000000),
    ],
    ("pgd", "l2"): [
        *(0.798567, 0.027630, 0.456425, 0.575375, 0.566771, 0.202780),
        *(0.500000, 0.000000, 0.698886, 0.491697, 0.318350, 0.750961),
    ],
}


@pytest.mark.parametrize(("name", "norm"), GOLDEN)
def test_golden_images(name, norm):
    """A change here changes published numbers: raise the attack's VERSION, then these."""
    matrix = tf.constant([[2.0, -1.0, 0.5], [-1.0, 1.5, 1.0]])

    def model(images):
        flat = tf.reshape(images, (-1, 2))
        return flat @ matrix + tf.square(flat) @ tf.reverse(matrix, [1])

    images = np.array([[0.9, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32).reshape(3, 1, 2, 1)
    labels = np.argmax(model(images), axis=1)
    result = build({"name": name, "norm": norm})(model, images, labels, [0.2, 0.45], choose="last")
    assert VERSIONS[name] == REGISTRY[name].VERSION
    np.testing.assert_allclose(result.images.ravel(), GOLDEN[name, norm], atol=2e-6)


def test_images_that_are_not_finite_are_refused():
    broken = np.linspace(0, 1, 10, dtype=np.float32).reshape(10, 1, 1, 1)
    broken[3:5] = np.nan
    with pytest.raises(ValueError, match="the images hold NaN or infinity for 2 of 10 images"):
        build({"name": "fgsm"})(line_model(), broken, np.zeros(10, int), [0.1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": [0.1, -0.1]}, r"found epsilons \[0.1, -0.1\]"),
        ({"epsilons": [np.nan]}, "finite numbers"),
        ({"epsilons": []}, "at least one"),
        ({"images": np.zeros((3, 1, 1, 1))}, "found images float64"),
        ({"images": np.zeros((3, 1, 1), np.float32)}, r"\(N, H, W, C\)"),
        ({"images": np.full((3, 1, 1, 1), 255, np.float32)}, r"from 255.0 to 255.0; \[0, 1\]"),
        ({"labels": np.zeros(2, int)}, r"found labels of shape \(2,\); \(3,\)"),
        ({"labels": np.zeros(3)}, "found labels float64"),
        ({"labels": np.array([0, -1, 0])}, "integers from 0"),
        ({"labels": np.array([0, 2, 0])}, "found label 2; the model has 2 classes"),
        ({"clean_correct": np.ones(3)}, "found clean_correct float64"),
        ({"example_indices": np.arange(4)}, "found example_indices of shape"),
        ({"targets": np.ones(3, int)}, "found targets for fgsm, which is not targeted"),
        ({"choose": "best"}, "allowed: first, strongest, last"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"images": np.zeros((3, 1, 1, 1), np.float32), "labels": np.zeros(3, int), "epsilons": [0.1]}
    with pytest.raises(ValueError, match=message):
        build({"name": "fgsm"})(line_model(), **{**arguments, **change})


def test_build_validates_options():
    assert build({"name": "bim", "steps": 3}) == REGISTRY["bim"](steps=3)
    assert build({"name": "fgsm"}).norm == REGISTRY["fgsm"].NORMS[0]
    with pytest.raises(ValueError, match=r"found attack 'fgms'; allowed: .*bim, .*fgsm"):
        build({"name": "fgms"})
    for options in (
        {"steps": 0},
        {"stepz": 3},
        {"norm": "l1"},
        {"step_size": -0.1},
        {"relative_step_size": 0},
    ):
        with pytest.raises(pydantic.ValidationError, match=next(iter(options))):
            build({"name": "bim", **options})


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Corners(Attack):
    """A user's own attack: random corners of the box around the image, keyed by the example."""

    name = "corners"
    tries: int = 1

    def search(self, rows):
        for attempt in range(self.tries):
            cube = rows.randomness.draw(LINF, rows.example, rows.clean.shape[1:], stream=attempt)
            iterates = rows.project(rows.clean + rows.radius * np.sign(cube))
            rows.judge(iterates, rows.logits(iterates), final=attempt == self.tries - 1)
            if not len(rows):
                return


def test_a_users_own_attack():
    config = {"name": "mine", "factory": f"{__name__}:Corners", "norm": "linf", "tries": 3}
    attack = build(config)
    assert attack == Corners(tries=3)
    images = np.linspace(0.3, 0.49, 20, dtype=np.float32).reshape(20, 1, 1, 1)
    labels, indices = np.zeros(20, int), np.arange(100, 120)
    whole = attack(line_model(), images, labels, [0.1, 0.3], seed=5, example_indices=indices)
    half = attack(line_model(), images[10:], labels[10:], [0.1, 0.3], seed=5, example_indices=indices[10:])
    assert np.array_equal(half.images, whole.images[:, 10:])
    other = attack(line_model(), images, labels, [0.1, 0.3], seed=6, example_indices=indices)
    assert not np.array_equal(other.images, whole.images)
    assert whole.success.any() and not whole.success.all()


@dataclass(frozen=True, kw_only=True)
class Leap(Attack):
    """An attack that breaks the rules: an iterate outside the ball, then one inside, both misclassified."""

    def search(self, rows):
        for radius in (1.5 * rows.radius, rows.radius):
            iterates = rows.clean + radius
            rows.judge(iterates, rows.logits(iterates), final=False)


def test_a_misclassified_image_outside_the_ball_is_no_success():
    images = np.full((1, 1, 1, 1), 0.48, np.float32)
    result = Leap()(line_model(), images, np.zeros(1, int), [0.015, 0.1])
    assert result.success.tolist() == [[False], [True]]
    np.testing.assert_allclose(result.distance, [[np.inf], [0.1]], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(REGISTRY.keys() - {"stored"}))
def test_the_choice_matters_as_said(name):
    norm = REGISTRY[name].NORMS[0]
    digits, attack = digits_cnn(), build(quick(name, norm))
    epsilon = 0.1 if norm == "linf" else 0.8
    found = [
        attack(digits.model, digits.images[:40], digits.labels[:40], [epsilon], choose=choose).images
        for choose in ("first", "strongest", "last")
    ]
    assert all(np.array_equal(found[0], other) for other in found[1:]) != attack.choose_matters


def confident_model():
    """One pixel, three classes, so sure of itself that float32 softmax leaves no gradient at all."""
    return affine([[-4000.0, 4000.0, 0.0]], [2000.0, -2000.0, -300.0])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_confidence_does_not_hide_the_gradient(norm):
    images = np.linspace(0.1, 0.4, 7, dtype=np.float32).reshape(7, 1, 1, 1)
    labels = np.zeros(7, int)
    spared = tf.Variable(images)
    with tf.GradientTape() as tape:
        logits = confident_model()(spared)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    assert not tape.gradient(loss, spared).numpy().any(), "a library's own cross-entropy is blind here"
    result = build({"name": "fgsm", "norm": norm})(confident_model(), images, labels, [0.45])
    assert result.success.all() and not result.flags


def test_given_targets_are_reached():
    digits = digits_cnn()
    images, labels = digits.images[:60], digits.labels[:60]
    targets = (labels + 3) % 10
    attack = build({"name": "bim", "targeted": True, "steps": 30})
    result = attack(digits.model, images, labels, [0.1, 0.5], targets=targets)
    answers = np.argmax(digits.model(result.adversarial(1), training=False), axis=1)
    assert np.array_equal(answers == targets, result.success[1]) and result.success[1].mean() > 0.9
    assert result.success[0].mean() < result.success[1].mean()
    with pytest.raises(ValueError, match="targets equal to the label"):
        attack(digits.model, images, labels, [0.1], targets=labels)


def test_parts_of_a_call_are_put_together(monkeypatch):
    from workers.attacks import base

    digits, attack = digits_cnn(), build({"name": "pgd", "steps": 3})
    arguments = (digits.model, digits.images[:50], digits.labels[:50], [0.05, 0.2])
    whole = attack(*arguments, example_indices=np.arange(50) * 7)
    monkeypatch.setattr(base, "ROW_BYTES", 2 * 8 * 8 * 4 * 9)  # nine examples at two epsilons
    parts = attack(*arguments, example_indices=np.arange(50) * 7)
    assert (parts.success != whole.success).mean() <= 0.02 and parts.success.any()
    np.testing.assert_array_equal(parts.gradient_calls_at[:, 0], whole.gradient_calls_at[:, 0])
    assert (np.abs(parts.images - whole.images) < 1e-5).mean() > 0.99


def test_importing_the_registry_is_light():
    code = "import sys, workers.attacks, workers.metrics; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
