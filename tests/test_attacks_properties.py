"""What holds for every attack: the ball, the box, what success means, what is counted, who knows whom."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.models import digits_cnn, random_affine
from workers import metrics
from workers import network as network_module
from workers.attacks import REGISTRY, build
from workers.norms import NORMS

pytestmark = pytest.mark.tf

FIXED_BUDGET = [
    {"name": "fgsm", "norm": "linf"},
    {"name": "fgsm", "norm": "l2"},
    {"name": "bim", "norm": "linf", "steps": 3, "relative_step_size": 0.5},
    {"name": "bim", "norm": "l2", "steps": 3, "relative_step_size": 0.5},
    {"name": "bim", "norm": "linf", "steps": 2, "step_size": 0.07},
    {"name": "bim", "norm": "l2", "steps": 3, "loss": "margin"},
    {"name": "pgd", "norm": "linf", "steps": 2, "restarts": 2},
    {"name": "pgd", "norm": "l2", "steps": 2, "restarts": 2},
    {"name": "noise", "norm": "linf", "repeats": 2},
    {"name": "noise", "norm": "l2", "repeats": 2},
    {"name": "pgd", "norm": "l2", "steps": 3, "relative_step_size": 0.4, "like": "foolbox"},
    {"name": "apgd", "norm": "linf", "steps": 5},
    {"name": "apgd", "norm": "l2", "steps": 5, "loss": "dlr", "restarts": 1},
    {"name": "apgd", "norm": "linf", "steps": 3, "restarts": 2, "targeted_classes": 2},
    {"name": "square", "norm": "linf", "queries": 9},
    {"name": "square", "norm": "l2", "queries": 9},
    {"name": "standard", "norm": "linf", "steps": 2, "queries": 4, "targeted_classes": 5},
    {"name": "standard", "norm": "l2", "steps": 2, "queries": 4},
    {"name": "standard", "norm": "l2", "steps": 2, "queries": 4, "version": "plus"},
]
MINIMUM_NORM = [
    {"name": "deepfool", "norm": "l2", "steps": 8},
    {"name": "deepfool", "norm": "linf", "steps": 8},
    {"name": "carlini_wagner", "norm": "l2", "binary_search_steps": 2, "steps": 10},
    {"name": "ddn", "norm": "l2", "steps": 10},
    {"name": "fmn", "norm": "l2", "steps": 10},
    {"name": "fmn", "norm": "linf", "steps": 10},
    {"name": "fab", "norm": "linf", "steps": 3},
    {"name": "fab", "norm": "l2", "steps": 2, "restarts": 2, "targeted_classes": 2},
    {"name": "fab", "norm": "l2", "steps": 3, "restarts": 2, "targeted_classes": 0},
]
TARGETED = [
    {"name": "fgsm", "norm": "l2", "targeted": True},
    {"name": "bim", "norm": "linf", "steps": 3, "relative_step_size": 0.5, "targeted": True},
    {"name": "pgd", "norm": "l2", "steps": 2, "restarts": 2, "targeted": True},
    {"name": "pgd", "norm": "linf", "steps": 3, "loss": "dlr", "targeted": True},
    {"name": "apgd", "norm": "l2", "steps": 4, "targeted": True},
    {"name": "apgd", "norm": "linf", "steps": 4, "loss": "dlr", "targeted": True},
    {"name": "square", "norm": "linf", "queries": 9, "targeted": True},
    {"name": "carlini_wagner", "norm": "l2", "binary_search_steps": 2, "steps": 10, "targeted": True},
    {"name": "ddn", "norm": "l2", "steps": 10, "targeted": True},
    {"name": "fmn", "norm": "linf", "steps": 10, "targeted": True},
]
UNTARGETED = FIXED_BUDGET + MINIMUM_NORM
CONFIGS = UNTARGETED + TARGETED


def label(config):
    return "-".join(str(value) for value in config.values())


@st.composite
def problems(draw):
    """An affine model, images of any small shape with the model's own labels (some spoilt), epsilons."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)))
    seed = draw(st.integers(0, 2**16))
    model = random_affine(shape, classes=4, seed=seed)
    generator = np.random.default_rng(seed)
    images = generator.random((draw(st.integers(0, 11)), *shape), dtype=np.float32)
    labels = np.argmax(model(images), axis=1) if len(images) else np.zeros(0, int)
    labels = np.where(generator.random(len(images)) < 0.2, (labels + 1) % 4, labels)
    epsilons = draw(st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3, 0.7]), min_size=1, max_size=4))
    return model, images, labels, epsilons


def check(result, config, model, images, labels, epsilons):
    """Inside the ball and the box, success as measured here, nothing spent on what is wrong or at 0."""
    assert result.images.shape == (len(epsilons), *images.shape) and result.images.dtype == np.float32
    assert result.success.shape == result.distance.shape == (len(epsilons), len(images))
    assert result.distance.dtype == np.float32
    if not len(images):
        assert np.isnan(result.robust_accuracy).all() and not result.gradient_calls.sum()
        return
    clean_logits = np.asarray(model(images))
    assert np.array_equal(result.clean_correct, clean_logits.argmax(axis=1) == labels)
    if "targeted" in config:
        assert (result.targets != labels).all()
        assert result.targets.min() >= 0 and result.targets.max() < clean_logits.shape[1]
    for k, epsilon in enumerate(epsilons):
        adversarial, success = result.adversarial(k), result.success[k]
        measured = NORMS[config["norm"]].distance(images, adversarial)
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert metrics.within(measured, epsilon).all()
        assert np.array_equal(result.distance[k], np.where(success, measured, np.inf))
        logits = np.asarray(model(adversarial))
        if "targeted" in config:
            fooled = metrics.favours(logits, result.targets)
        else:
            fooled = metrics.fools(logits, labels)
        assert np.array_equal(success, fooled & result.clean_correct)
        assert np.array_equal(adversarial[~result.clean_correct], images[~result.clean_correct])
        if epsilon == 0:
            assert np.array_equal(adversarial, images) and not success.any()
            # The nearest image is looked for whatever the epsilons.
            looked = REGISTRY[config["name"]].minimum_norm and not any(epsilons)
            assert looked or not result.gradient_calls_at[k].any()
        robust = result.clean_correct.sum() - success.sum()
        assert result.robust_accuracy[k] == pytest.approx(robust / len(images))
    check_nearest(result, config, model, images, labels, epsilons)
    assert not result.gradient_calls[~result.clean_correct].any()
    assert (result.forward_calls[~result.clean_correct] == 1).all()


def check_nearest(result, config, model, images, labels, epsilons):
    """The nearest images are adversarial, where they are claimed to be, and decide every epsilon."""
    if not REGISTRY[config["name"]].minimum_norm:
        assert result.nearest is None and result.nearest_images is None
        return
    nearest, found = result.nearest, np.isfinite(result.nearest)
    assert nearest.shape == (len(images),) and result.nearest_images.shape == images.shape
    assert not found[~result.clean_correct].any()
    assert np.array_equal(result.nearest_images[~found], images[~found])
    measured = NORMS[config["norm"]].distance(images, result.nearest_images)
    assert np.array_equal(nearest[found], measured[found])
    logits = np.asarray(model(result.nearest_images))[found]
    if "targeted" in config:
        assert metrics.favours(logits, result.targets[found]).all()
    else:
        assert metrics.fools(logits, labels[found]).all()
    for success, epsilon in zip(result.success, epsilons, strict=True):
        assert np.array_equal(success, metrics.within(nearest, epsilon) & (epsilon > 0))


def test_every_attack_is_here():
    here = {(config["name"], config["norm"]) for config in UNTARGETED}
    assert here == {(name, norm) for name in REGISTRY.keys() - {"stored"} for norm in REGISTRY[name].NORMS}


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from(CONFIGS), st.sampled_from(["first", "strongest", "last"]))
def test_results_are_what_they_claim(problem, config, choose):
    model, images, labels, epsilons = problem
    result = build(config)(model, images, labels, epsilons, choose=choose)
    check(result, config, model, images, labels, epsilons)
    if config in MINIMUM_NORM:
        alone = build(config)(model, images, labels, [0.0])
        assert np.array_equal(alone.nearest, result.nearest)
        assert np.array_equal(alone.nearest_images, result.nearest_images)
        order = np.argsort(epsilons, kind="stable")
        assert (np.diff(result.success[order].astype(int), axis=0) >= 0).all(), "monotone in epsilon"


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(CONFIGS), st.randoms(use_true_random=False))
def test_an_example_does_not_know_its_company(problem, config, random):
    """Any subset in any order, at any one of the epsilons, gives what the whole call gave."""
    model, images, labels, epsilons = problem
    chosen = random.sample(range(len(images)), random.randint(0, len(images)))
    k = random.randrange(len(epsilons))
    indices = np.arange(50, 50 + len(images))
    whole = build(config)(model, images, labels, epsilons, seed=3, example_indices=indices)
    part = build(config)(
        model, images[chosen], labels[chosen], epsilons[k : k + 1], seed=3, example_indices=indices[chosen]
    )
    assert np.array_equal(part.success[0], whole.success[k, chosen])
    np.testing.assert_allclose(part.images[0], whole.images[k, chosen], atol=1e-5)
    np.testing.assert_allclose(part.distance[0], whole.distance[k, chosen], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", UNTARGETED, ids=label)
def test_a_network_does_not_care_how_examples_are_cut(config):
    digits, attack = digits_cnn(), build(config)
    epsilons = [0.05, 0.1] if config["norm"] == "linf" else [0.5, 1.0]
    whole = attack(digits.model, digits.images[:60], digits.labels[:60], epsilons)
    order = np.random.default_rng(1).permutation(60)
    same = np.zeros(60, bool)
    for part in np.split(order, [1, 8, 8, 31]):
        cut = attack(digits.model, digits.images[part], digits.labels[part], epsilons, example_indices=part)
        same[part] = (cut.success == whole.success[:, part]).all(axis=0)
        same[part] &= np.abs(cut.images - whole.images[:, part]).max(axis=(0, 2, 3, 4)) < 1e-3
    # sign() may amplify the last bits of a float sum.
    assert same.sum() >= 59
    if config["name"] != "noise":
        assert whole.success.any() and not whole.success[:, whole.clean_correct].all()


@pytest.mark.parametrize("config", CONFIGS, ids=label)
@pytest.mark.parametrize(("shape", "classes"), [((1, 1, 1), 2), ((7, 3, 4), 1000), ((2, 5, 3), 3)], ids=str)
def test_any_size_and_number_of_classes(config, shape, classes):
    model = random_affine(shape, classes, seed=5)
    images = np.random.default_rng(2).random((3, *shape), np.float32)
    labels = np.argmax(model(images), axis=1)
    epsilons = [0.1, 1.0] if config["norm"] == "linf" else [0.3, 10.0]
    result = build(config)(model, images, labels, epsilons)
    check(result, config, model, images, labels, epsilons)


def takes_several_gradients(config):
    """Of one look at the image: DeepFool, and FAB against all classes at once."""
    return config["name"] == "deepfool" or config.get("targeted_classes") == 0 or "version" in config


@pytest.mark.parametrize("config", [one for one in CONFIGS if not takes_several_gradients(one)], ids=label)
def test_the_model_sees_exactly_the_counted_images(config, monkeypatch):
    """Counted inside the graph by the model itself, in batches of one so that there is no padding."""
    monkeypatch.setattr(network_module, "BATCH_SIZES", {"CPU": (1,), "GPU": (1,)})
    digits = digits_cnn()
    seen = tf.Variable(0, trainable=False)

    def counting(images):
        seen.assign_add(tf.shape(images)[0])
        return digits.model(images, training=False)

    epsilons = [0.0, 0.3, 0.1] if config["norm"] == "linf" else [0.0, 8.0, 0.5]
    result = build(config)(counting, digits.images[:5], digits.labels[:5], epsilons)
    probes = 5 * (5 + 8) + 8  # the looks at the model's health, and at the scale of its logits
    assert int(seen) - probes == result.gradient_calls.sum() + result.forward_calls.sum()
    assert (result.gradient_calls.sum() == 0) == (config["name"] in ("square", "noise"))


@pytest.mark.parametrize("config", UNTARGETED, ids=label)
def test_the_seed_decides(config):
    digits = digits_cnn()
    epsilon = 0.05 if config["norm"] == "linf" else 0.5
    found = [
        build(config)(digits.model, digits.images[:20], digits.labels[:20], [epsilon], seed=seed).images
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(found[0], found[1])
    # One restart of FAB begins at the clean image.
    moved = REGISTRY[config["name"]].randomised and not (config["name"] == "fab" and "restarts" not in config)
    assert np.array_equal(found[0], found[2]) != moved
