"""How strong the attacks are by default, on networks that were trained to resist them and on plain ones."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.support.models import SCALES, VICTIMS, robust_digits_cnn, trained
from workers.attacks import build
from workers.losses import SPREAD
from workers.norms import L2, NORMS

pytestmark = pytest.mark.tf

EPSILONS = {"linf": np.array([0.15, 0.2, 0.25, 0.3]), "l2": np.array([0.6, 0.9, 1.2, 1.5])}


def robust(victim, norm, epsilons, **config):
    """Which of the examples hold at each epsilon, (E, N) bool."""
    result = build({"norm": norm, **config})(*victim, epsilons)
    return result.clean_correct & ~result.success


@st.composite
def points(draw):
    """A clean image with pixels at the faces of the box, another point near it or far away, and a radius."""
    size = draw(st.integers(1, 7))
    generator = np.random.default_rng(draw(st.integers(0, 2**20)))
    clean = generator.random(size)
    clean[generator.random(size) < 0.5] = generator.integers(0, 2)
    other = clean + draw(st.sampled_from([0.01, 0.3, 3.0])) * generator.normal(size=size)
    return clean.astype(np.float32), other.astype(np.float32), draw(st.floats(0.0, 1.5, width=32))


@given(points(), st.sampled_from(sorted(NORMS)))
def test_confined_points_use_the_whole_radius(case, name):
    clean, other, radius = (np.reshape(each, (1, -1, 1, 1)).astype(np.float32) for each in case)
    norm = NORMS[name]
    found = norm.confine(other, clean, radius)
    assert ((found >= 0) & (found <= 1)).all()
    wanted = min(norm.distance(clean, np.clip(other, 0, 1)).item(), radius.item())
    assert norm.distance(clean, found).item() == pytest.approx(wanted, rel=1e-6, abs=1e-6)
    assert norm.distance(clean, norm.project(other, clean, radius)) <= wanted * (1 + 1e-6) + 1e-6
    if name == "linf":
        np.testing.assert_allclose(found, norm.project(other, clean, radius), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("victim", ["robust", *VICTIMS])
def test_bim_breaks_whatever_fgsm_breaks(victim, norm):
    """Its first step is FGSM's; one example may hang on the last bits of a gradient."""
    scale = 1.0 if victim == "robust" else SCALES[victim, norm] / 3
    network = robust_digits_cnn(norm) if victim == "robust" else trained(victim)
    epsilons = scale * EPSILONS[norm]
    fgsm, bim = (robust(network, norm, epsilons, name=name) for name in ("fgsm", "bim"))
    assert (bim & ~fgsm).sum() <= 1
    assert bim.sum() < fgsm.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_robust_network_the_default_pgd_is_the_strongest_of_its_kind(norm):
    victim, epsilons = robust_digits_cnn(norm), EPSILONS[norm]
    held = {
        key: robust(victim, norm, epsilons, **config).mean(axis=1)
        for key, config in {
            "fgsm": {"name": "fgsm"},
            "bim": {"name": "bim"},
            "pgd": {"name": "pgd"},
            "theirs": {"name": "pgd", "like": "foolbox"},
        }.items()
    }
    assert (held["pgd"] <= held["fgsm"]).all() and (held["pgd"] <= held["bim"] + 0.005).all()
    assert (held["pgd"] <= held["theirs"]).all()
    assert held["theirs"].mean() - held["pgd"].mean() > 0.08, "what Foolbox's step size costs"


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_on_a_plain_network_the_default_pgd_is_no_weaker_than_foolbox(victim, norm):
    network, epsilons = trained(victim), SCALES[victim, norm] / 3 * EPSILONS[norm]
    ours, theirs = (
        robust(network, norm, epsilons, name="pgd", **like).sum(axis=1) for like in ({}, {"like": "foolbox"})
    )
    assert (ours <= theirs + 1).all() and ours.sum() <= theirs.sum()


def test_restarts_are_what_a_robust_network_holds_against():
    victim, epsilons = robust_digits_cnn("l2"), EPSILONS["l2"][:3]
    one, five = (robust(victim, "l2", epsilons, name="apgd", **some) for some in ({"restarts": 1}, {}))
    assert not (five & ~one).any() and one.mean() - five.mean() > 0.01
    short = {"name": "apgd", "norm": "linf", "steps": 2, "targeted_classes": 1}
    spent = build(short)(*victim, [0.01]).gradient_calls
    assert np.array_equal(spent, build({**short, "restarts": 1})(*victim, [0.01]).gradient_calls)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fmn_is_as_near_as_fab_on_a_robust_network(norm):
    """In linf; in l2 FAB, with nine times the gradients, may be nearer by some percent."""
    model, images, labels = robust_digits_cnn(norm)

    def median(**config):
        result = build({"norm": norm, **config})(model, images[:100], labels[:100], [50.0])
        return np.median(result.distance[0, result.clean_correct])

    fmn = median(name="fmn")
    assert fmn <= median(name="fab") * (1.01 if norm == "linf" else 1.1)
    assert fmn <= median(name="fmn", max_step_size=1.0) * (1.0 if norm == "linf" else 1.03)


def curved(images):
    """Four pixels, four classes, not linear."""
    matrix = tf.constant(np.random.default_rng(3).normal(scale=0.3, size=(4, 4)), tf.float32)
    flat = tf.reshape(images, (-1, 4))
    return flat @ matrix + tf.square(flat) @ tf.reverse(matrix, [1])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["bim", "pgd"])
def test_each_loss_is_the_one_that_is_ascended(name, targeted):
    """A step from a clean image goes along the gradient of the loss that was asked for, in L2."""
    images = np.random.default_rng(1).uniform(0.4, 0.6, (6, 2, 2, 1)).astype(np.float32)
    logits = np.asarray(curved(images))
    labels = logits.argmax(axis=1)
    targets = (labels + 1) % 4
    aimed = targets if targeted else labels

    def value(logits, loss):
        ranked = tf.sort(logits, direction="DESCENDING")
        own = tf.gather(logits, aimed, axis=1, batch_dims=1)
        other = tf.reduce_max(logits - 1e9 * tf.one_hot(aimed, 4), axis=1)
        if loss == "cross_entropy":
            # Of logits stretched to one spread; how wide they were is no part of what is ascended.
            width = tf.stop_gradient(ranked[:, 0] - ranked[:, 3])[:, None]
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(aimed, SPREAD * logits / width)
            return -entropy if targeted else entropy
        if loss == "margin":
            return own - other if targeted else other - own
        if not targeted:
            return (other - own) / (ranked[:, 0] - ranked[:, 2])
        label = tf.gather(logits, labels, axis=1, batch_dims=1)
        return (own - label) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2)

    found = {}
    for loss in ("cross_entropy", "margin", "dlr"):
        watched = tf.Variable(images)
        with tf.GradientTape() as tape:
            losses = value(curved(watched), loss)
        gradient = tape.gradient(losses, watched).numpy()
        expected = images + 0.05 * gradient / L2.dual(gradient)[:, None, None, None]
        options = {"norm": "l2", "steps": 1, "relative_step_size": 1.0, "loss": loss, "targeted": targeted}
        options |= {"random_start": False} if name == "pgd" else {}
        arguments = {"targets": targets} if targeted else {}
        attack = build({"name": name, **options})
        result = attack(curved, images, labels, [0.05], choose="last", **arguments)
        np.testing.assert_allclose(result.images[0], expected, atol=2e-6)
        found[loss] = result.images[0]
    # Towards one class, the cross-entropy of stretched logits all but is the margin.
    assert targeted or np.abs(found["margin"] - found["cross_entropy"]).max() > 1e-4
    assert np.abs(found["margin"] - found["dlr"]).max() > 1e-4


@pytest.mark.parametrize("name", ["bim", "pgd"])
def test_steps_fall_along_a_cosine_unless_a_size_is_given(name):
    """One pixel whose step turns back at each visit: where it is says how long the steps were."""

    def zigzag(images):
        """Slope up below 0.5, down above it: from 0.5 steps alternate, whatever their length."""
        flat = tf.reshape(images, (-1, 1))
        return tf.concat([5.0 + 0 * flat, -tf.abs(flat - 0.5)], axis=1)

    def places(**options):
        options |= {"random_start": False} if name == "pgd" else {}
        found = []
        for steps in (1, 2, 3, 4):
            attack = build({"name": name, "steps": steps, **options})
            clean = np.full((1, 1, 1, 1), 0.45, np.float32)
            found.append(attack(zigzag, clean, np.zeros(1, int), [0.4], choose="last").images.item())
        return found

    for sizes in ({"relative_step_size": 0.25}, {"step_size": 0.1}, {"like": "foolbox", "step_size": 0.1}):
        np.testing.assert_allclose(places(**sizes), [0.55, 0.45, 0.55, 0.45], atol=1e-6)
    # Of n steps the k-th is 0.4 (1 + cos(pi k / n)) / 2: 0.4 alone; 0.4, 0.2; 0.4, 0.3, 0.1; ...
    np.testing.assert_allclose(places()[:3], [0.85, 0.65, 0.45], atol=1e-6)


def test_like_foolbox_has_one_loss():
    for name in ("bim", "pgd"):
        with pytest.raises(pydantic.ValidationError, match="found loss margin together with like foolbox"):
            build({"name": name, "like": "foolbox", "loss": "margin"})
    with pytest.raises(pydantic.ValidationError, match="found min_step_size without max_step_size"):
        build({"name": "fmn", "min_step_size": 0.01})


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_against_all_classes_goes_to_the_nearest(norm):
    """One run at K − 1 gradients a step is as near as one against each class, where boundaries are flat."""
    generator = np.random.default_rng(4)
    weights = (generator.normal(size=(27, 6)) * [1, 4, 2, 1, 3, 2]).astype(np.float32)

    def model(images):
        return tf.reshape(images, (-1, 27)) @ weights - 0.5 * weights.sum(axis=0)

    images = generator.uniform(0.4, 0.6, (20, 3, 3, 3)).astype(np.float32)
    labels = np.asarray(model(images)).argmax(axis=1)
    found = {
        count: build({"name": "fab", "norm": norm, "steps": 5, "targeted_classes": count})(
            model, images, labels, [9.0]
        )
        for count in (0, 1, 5)
    }
    np.testing.assert_allclose(found[0].distance, found[5].distance, rtol=3e-3)
    assert (found[0].distance < 0.98 * found[1].distance).any(), "the likeliest is not always the nearest"
    assert (found[0].gradient_calls == 5 * 5).all()


def test_fab_against_all_classes_on_a_robust_network():
    victim = robust_digits_cnn("l2")
    victim = victim._replace(images=victim.images[:60], labels=victim.labels[:60])
    epsilons = EPSILONS["l2"]
    fab = {"name": "fab", "steps": 30}
    one, five = (
        build({**fab, "norm": "l2", "targeted_classes": 0, "restarts": restarts})(*victim, [50.0])
        for restarts in (1, 5)
    )
    assert (five.distance <= one.distance * (1 + 2e-3)).all() and (five.distance < 0.98 * one.distance).any()
    held = robust(victim, "l2", epsilons, name="fgsm")
    for k, epsilon in enumerate(epsilons):
        assert (five.clean_correct & (five.distance[0] > epsilon)).sum() < held[k].sum()
        assert NORMS["l2"].distance(victim.images, five.images[0])[five.success[0]].max() < 5
