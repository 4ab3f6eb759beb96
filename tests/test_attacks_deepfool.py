"""DeepFool against Foolbox on trained networks, and against closed forms on affine ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.support.models import VICTIMS, Trained, affine, digits_cnn, trained
from workers import metrics
from workers.attacks import AttackResult, build
from workers.attacks.deepfool import STABILITY
from workers.norms import NORMS

pytestmark = pytest.mark.tf

ANY = 1e3  # an epsilon that every image is within


def deepfool(norm: str, **options: Any) -> Any:
    return build({"name": "deepfool", "norm": norm, **options})


def foolbox_images(model: Any, images: np.ndarray, labels: np.ndarray, norm: str) -> np.ndarray:
    import foolbox

    attacks = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}
    wrapped = foolbox.TensorFlowModel(model, bounds=(0, 1))
    found, _, _ = attacks[norm]()(wrapped, tf.constant(images), tf.constant(labels), epsilons=None)
    return np.asarray(found)


def compare(
    model: Any, images: np.ndarray, labels: np.ndarray, theirs: np.ndarray, norm: str
) -> AttackResult:
    """At no fewer successes, the median distance is at most Foolbox's, within 1%; so is every quartile."""
    result: AttackResult = deepfool(norm)(model, images, labels, [ANY])
    correct = result.clean_correct
    # By its own criterion: its images often lead by less than what counts as success here.
    fooled = np.asarray(model(theirs, training=False)).argmax(axis=1) != labels
    distance = np.where(fooled, NORMS[norm].distance(images, theirs), np.inf)[correct]
    assert result.success[0, correct].sum() >= fooled[correct].sum() > 0.9 * correct.sum() > 0
    for share in (0.25, 0.5, 0.75):
        ours = np.quantile(result.distance[0, correct], share)
        assert 0 < ours <= 1.01 * np.quantile(distance, share)
    assert not result.flags
    return result


@cache
def first_digits() -> Trained:
    whole = digits_cnn()
    return Trained(whole.model, whole.images[:150], whole.labels[:150])


@pytest.fixture(scope="module")
def digits() -> Trained:
    return first_digits()


@cache
def foolbox_digits(norm: str) -> np.ndarray:
    return foolbox_images(*first_digits(), norm)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_at_least_as_near_as_foolbox(digits: Trained, norm: str) -> None:
    result = compare(*digits, foolbox_digits(norm), norm)
    # Each call's first step asks for nine classes, each later one for two.
    calls = result.gradient_calls[result.clean_correct]
    assert ((calls - 9) % 2 == 0).all() and calls.min() >= 9 and (calls > 9).any()
    assert not result.gradient_calls[~result.clean_correct].any()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_same_images_as_foolbox(digits: Trained, norm: str) -> None:
    """Without what this one adds: bisection, and fewer classes after the first step."""
    theirs = foolbox_digits(norm)
    attack = deepfool(norm, refine=False, followed=None)
    result = attack(*digits, [ANY])
    difference = np.abs(result.images[0] - theirs).max(axis=(1, 2, 3))[result.clean_correct]
    # Where another boundary is as near, or success is a matter of the margin, the ways part.
    assert np.median(difference) < 1e-5
    assert (difference < 1e-3).mean() > 0.95


def test_following_fewer_classes_costs_next_to_nothing(digits: Trained) -> None:
    few, many = (deepfool("l2", followed=followed)(*digits, [ANY]) for followed in (2, None))
    assert (few.success == many.success).all()
    medians = [np.median(result.distance[0, result.clean_correct]) for result in (few, many)]
    assert medians[0] <= 1.005 * medians[1]
    assert few.gradient_calls.sum() < 0.7 * many.gradient_calls.sum()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_curve_is_never_above_clip_and_retest(digits: Trained, norm: str) -> None:
    """Foolbox decides an epsilon by clipping its images to the ball and asking the model again."""
    epsilons = [0.3, 0.6, 1.0, 1.5, 2.5] if norm == "l2" else [0.03, 0.06, 0.1, 0.2, 0.3]
    change = foolbox_digits(norm) - digits.images
    size = NORMS[norm].distance(digits.images, digits.images + change)[:, None, None, None]
    result = deepfool(norm)(*digits, epsilons)
    for k, epsilon in enumerate(epsilons):
        scaled = (
            change * np.minimum(1, epsilon / np.maximum(size, 1e-12))
            if norm == "l2"
            else change.clip(-epsilon, epsilon)
        )
        clipped = (digits.images + scaled).clip(0, 1).astype(np.float32)
        logits = np.asarray(digits.model(clipped, training=False))
        theirs = (logits.argmax(axis=1) == digits.labels).mean()
        # One image may fall to the class that only Foolbox still follows.
        assert result.robust_accuracy[k] <= theirs + 1 / len(digits.images) + 1e-9
    assert (np.diff(result.robust_accuracy) <= 0).all()
    assert result.robust_accuracy[0] > 0.4 and result.robust_accuracy[-1] < 0.3


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("classes", [2, 5, 12])
def test_one_step_on_a_linear_model_is_exact(norm: str, classes: int) -> None:
    """The distance to the nearest of the hyperplanes between the label's class and the others."""
    generator = np.random.default_rng(classes)
    weights, images = generator.normal(size=(12, classes)), generator.uniform(0.4, 0.6, (40, 2, 3, 2))
    biases = -weights.sum(axis=0) / 2
    images = images.astype(np.float32)
    logits = images.reshape(40, 12) @ weights + biases
    labels = logits.argmax(axis=1)
    leads = logits[np.arange(40), labels][:, None] - logits
    normals = weights.T[:, :, None] - weights[None]  # (K, D, K): of class k against each
    dual = np.abs(normals).sum(axis=1) if norm == "linf" else np.linalg.norm(normals, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = leads / dual[labels]
    distances[np.arange(40), labels] = np.inf
    options = {"candidates": None, "refine": False, "steps": 1}
    result = deepfool(norm, **options)(affine(weights, biases), images, labels, [ANY])
    # Where one step of 2% overshoot does not make the least lead that counts, there is none.
    least = (
        metrics.BLUR * np.abs(logits).max() / dual[labels].min(axis=1, where=dual[labels] > 0, initial=np.inf)
    )
    clear = distances.min(axis=1) * 0.02 > 2 * least
    inside = (result.images[0] > 0).all(axis=(1, 2, 3)) & (result.images[0] < 1).all(axis=(1, 2, 3))
    assert (clear & inside).sum() > 10
    expected = 1.02 * (distances.min(axis=1) + STABILITY)
    np.testing.assert_allclose(result.distance[0, clear & inside], expected[clear & inside], rtol=1e-4)
    assert (result.gradient_calls == classes - 1).all()
    refined = deepfool(norm, candidates=None)(affine(weights, biases), images, labels, [ANY])
    exact = distances.min(axis=1) + least
    assert refined.success.all()
    # Bisection stops within a thousandth of the boundary.
    np.testing.assert_array_less(refined.distance[0, inside], 1.003 * exact[inside] + 1e-5)
    np.testing.assert_array_less(0.999 * distances.min(axis=1)[inside], refined.distance[0, inside])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_where_nothing_has_a_gradient_the_distance_is_infinite(norm: str) -> None:
    def stairs(images: tf.Tensor) -> tf.Tensor:
        heights = tf.sign(tf.reshape(images, (-1, 4)) - 0.5)  # whose gradient TensorFlow gives as 0
        return heights @ tf.constant([[-1.0, 1.0, 0.0]] * 4)

    images = np.full((6, 2, 2, 1), 0.3, np.float32)
    result = deepfool(norm)(stairs, images, np.zeros(6, int), [0.1, ANY])
    assert np.isinf(result.distance).all() and not result.success.any()
    assert result.flags["zero_gradients"].all() and list(result.flags) == ["zero_gradients"]
    assert (result.gradient_calls == 2).all(), "once a class, and no step in vain"
    assert np.array_equal(result.images[0], images)


def test_a_flat_class_is_passed_over() -> None:
    """Class 1 is level with the label but flat; class 2 has a gradient, and is reached."""

    def model(images: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(images, (-1, 1))
        return tf.concat([x * 0 + 1.0, x * 0 + 0.9999, 2 * x], axis=1)

    images = np.full((1, 1, 1, 1), 0.2, np.float32)
    result = deepfool("linf")(model, images, np.zeros(1, int), [ANY])
    np.testing.assert_allclose(result.distance, [[0.3]], rtol=2e-3)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("slope", [1e-12, 1e-30, 1e12])
def test_steps_stay_finite_at_any_slope(norm: str, slope: float) -> None:
    model = affine([[-slope, slope], [slope, -slope]], [0.5 * slope + 1e-3, 0.0])
    images = np.full((2, 1, 2, 1), 0.5, np.float32)
    result = deepfool(norm, steps=5)(model, images, np.zeros(2, int), [ANY])
    assert np.isfinite(result.images).all() and result.success.all() == (slope == 1e12)


def test_parts_of_a_jacobian_are_put_together(digits: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (digits.model, digits.images[:50], digits.labels[:50], [1.0])
    whole = deepfool("l2")(*arguments)
    monkeypatch.setattr("workers.attacks.deepfool.GRADIENT_BYTES", 9 * 8 * 8 * 4 * 7)  # seven images
    parts = deepfool("l2")(*arguments)
    assert (whole.success == parts.success).mean() >= 0.98 and whole.success.any()
    np.testing.assert_array_equal(whole.gradient_calls, parts.gradient_calls)


# Two pixels, three classes, not linear. Expected images are for VERSION 1.
GOLDEN = {
    "l2": [0.824069, 0.124069, 0.40592, 0.571613, 0.487254, 0.249672],
    "linf": [0.824102, 0.124102, 0.416205, 0.583795, 0.445459, 0.245459],
}


@pytest.mark.parametrize("norm", GOLDEN)
def test_golden_images(norm: str) -> None:
    """A change here changes published numbers: raise the attack's VERSION, then these."""
    matrix = tf.constant([[2.0, -1.0, 0.5], [-1.0, 1.5, 1.0]])

    def model(images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(images, (-1, 2))
        return flat @ matrix + tf.square(flat) @ tf.reverse(matrix, [1])

    images = np.array([[0.9, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32).reshape(3, 1, 2, 1)
    attack = deepfool(norm)
    result = attack(model, images, np.argmax(model(images), axis=1), [ANY])
    assert attack.VERSION == 1
    np.testing.assert_allclose(result.images.ravel(), GOLDEN[norm], atol=2e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", VICTIMS[1:])
def test_at_least_as_near_as_foolbox_on_real_images(name: str, norm: str) -> None:
    model, images, labels = trained(name)
    images, labels = images[:60], labels[:60]
    compare(model, images, labels, foolbox_images(model, images, labels, norm), norm)
