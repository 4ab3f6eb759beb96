"""What is wrong with a model is said, and nothing else goes wrong: every attack, every norm, every fault."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from orchestrator.cli import app
from tests.support.models import affine, quick
from tests.support.sweeps import sweep
from workers import metrics
from workers.attacks import REGISTRY, Attack, build
from workers.network import network_for
from workers.norms import NORMS
from workers.unit import DEFAULT_RUNNER

pytestmark = pytest.mark.tf

WITHOUT_GRADIENTS = {"noise", "square", "stored"}
EPSILONS = {"linf": [0.1, 0.3], "l2": [0.4, 1.2]}
SHAPE = (4, 4, 1)
CASES = [(name, norm) for name, attack in sorted(REGISTRY.items()) for norm in attack.NORMS]

IMAGES = (0.5 + np.random.default_rng(0).uniform(-0.02, 0.02, (5, *SHAPE))).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 5))
# At the images the classes are all but level, so that any attack that sees something succeeds.
LEADS = np.array([0.3, 0.1, 0.0, -0.1, -0.2])


class Fault(NamedTuple):
    """A model, whether an attack on it may succeed, and its flags."""

    model: Callable[[Any], Any]
    breakable: bool
    always: set[str]
    with_gradients: set[str]  # of the attacks that take some, besides


def sound(images: Any) -> Any:
    return affine(WEIGHTS, LEADS - 0.5 * WEIGHTS.sum(axis=0))(images)


def far(images: Any) -> Any:
    """Which images are farther from grey than the clean ones, (B, 1): attacked, however little."""
    return (tf.reduce_max(tf.abs(images - 0.5), axis=(1, 2, 3)) > 0.0201)[:, None]


@tf.custom_gradient
def _with_nan_gradient(images: Any) -> Any:
    return tf.identity(images), lambda upstream: upstream * np.nan


@cache
def faults() -> dict[str, Fault]:
    """Each made once: a network is traced for each of them."""
    labels = np.argmax(sound(IMAGES), axis=1)
    wrong = tf.one_hot((labels[0] + 1) % 5, 5)[None]
    random = tf.random.Generator.from_seed(0)

    def nan_everywhere(images: Any) -> Any:
        return sound(images) * np.nan

    def nan_when_attacked(images: Any) -> Any:
        return tf.where(far(images), np.nan, sound(images))

    def infinity_when_attacked(images: Any) -> Any:
        """The wrong class wins, by infinity: no success."""
        return tf.where(far(images) & (wrong > 0), np.inf, sound(images))

    def nan_gradients(images: Any) -> Any:
        return sound(_with_nan_gradient(images))

    def stairs(images: Any) -> Any:
        """Steps of 0.04, whose gradient TensorFlow gives as 0."""
        thresholds = tf.range(-0.02, 1.02, 0.04)
        heights = tf.reduce_sum(tf.sign(images - thresholds), axis=3, keepdims=True)
        return sound(0.5 + 0.02 * heights)

    def rounded(images: Any) -> Any:
        """Steps of 0.04 through which no gradient flows at all."""
        return sound(tf.round(images / 0.04) * 0.04)

    def probabilities(images: Any) -> Any:
        return tf.nn.softmax(sound(images))

    def constant(images: Any) -> Any:
        return tf.constant([[3.0, 2.0, 1.0, 0.0, 0.0]]) + 0.0 * sound(images)

    def nondeterministic(images: Any) -> Any:
        return sound(images) + random.normal((tf.shape(images)[0], 5), stddev=1e-3)

    logits, gradients = {"non_finite_logits"}, {"non_finite_gradients"}
    return {
        "sound": Fault(sound, True, set(), set()),
        "nan_everywhere": Fault(nan_everywhere, False, logits, set()),
        "nan_when_attacked": Fault(nan_when_attacked, False, logits, set()),
        "infinity_when_attacked": Fault(infinity_when_attacked, False, logits, set()),
        "nan_gradients": Fault(nan_gradients, True, set(), gradients),
        "stairs": Fault(stairs, True, set(), {"zero_gradients"}),
        "rounded": Fault(rounded, True, set(), {"zero_gradients"}),
        "probabilities": Fault(probabilities, True, {"probabilities"}, set()),
        "constant": Fault(constant, False, {"constant_model"}, {"zero_gradients"}),
        "randomised": Fault(nondeterministic, True, {"randomised"}, set()),
    }


def configured(name: str, norm: str, folder: Path) -> Attack:
    """An attack with a small budget; stored images are corners of a cube around the clean ones."""
    options = quick(name, norm)
    if name == "stored":
        corners = np.random.default_rng(2).choice([-0.08, 0.08], IMAGES.shape)
        np.savez(folder / "images.npz", images=IMAGES + corners, example_index=np.arange(5))
        options["path"] = str(folder / "images.npz")
    return build(options)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", faults())
@pytest.mark.parametrize(("name", "norm"), CASES, ids=[f"{name}-{norm}" for name, norm in CASES])
def test_a_fault_is_flagged_and_no_number_is_wrong(name: str, norm: str, fault: str, tmp_path: Path) -> None:
    model, breakable, always, with_gradients = faults()[fault]
    labels = np.argmax(model(IMAGES), axis=1)
    result = configured(name, norm, tmp_path)(model, IMAGES, labels, EPSILONS[norm])
    expected = always | (set() if name in WITHOUT_GRADIENTS else with_gradients)
    # Where logits are not finite, some losses have a gradient that is not either.
    possible = {"non_finite_gradients"} if "non_finite_logits" in always else set()
    if fault == "randomised":  # a claim may be close
        possible = {"lost_claims"}
    assert expected <= set(result.flags) <= expected | possible
    attacked = result.clean_correct
    assert attacked.all() == (fault != "nan_everywhere")
    for name_of_flag, touched in result.flags.items():
        assert touched.shape == (5,) and touched.dtype == bool
        assert touched.any()
        if name_of_flag not in possible:
            # Each fault is everywhere; only who was broken before meeting it, by chance, is spared.
            assert (touched | result.success.any(axis=0)).all()
    assert np.isfinite(result.images).all() and result.images.min() >= 0 and result.images.max() <= 1
    assert (np.isfinite(result.distance) == result.success).all()
    assert np.array_equal(result.robust_accuracy, (attacked & ~result.success).mean(axis=1))
    if fault == "sound":  # otherwise the absence of successes elsewhere would show nothing
        assert result.success[-1].any()
    if not breakable:
        assert not result.success.any()
    for k, epsilon in enumerate(EPSILONS[norm]):
        found = result.success[k]
        distance = NORMS[norm].distance(IMAGES, result.adversarial(k))
        np.testing.assert_array_equal(result.distance[k, found], distance[found])
        assert metrics.within(distance, epsilon).all()
        if fault != "randomised":
            logits = network_for(model, SHAPE).logits(result.adversarial(k))
            assert np.isfinite(logits[found]).all() and metrics.fools(logits, labels)[found].all()


def test_a_flag_is_of_the_examples_that_it_touches() -> None:
    """Half of the images lie where the model is flat."""

    def model(images: Any) -> Any:
        mean = tf.reduce_mean(images, axis=(1, 2))
        return tf.concat([tf.nn.relu(0.5 - mean) + 0.1, 0.0 * mean], axis=1)

    images = np.full((6, *SHAPE), 0.3, np.float32)
    images[::2] = 0.9
    result = build({"name": "bim"})(model, images, np.zeros(6, int), [0.1])
    assert result.flags["zero_gradients"].tolist() == [True, False] * 3 and len(result.flags) == 1


USERS_MODEL = """
import keras


def stairs(input_shape, classes):
    def flat(images):
        # Sixteen steps; TensorFlow defines the gradient of sign as 0.
        steps = [keras.ops.sign(images - (k + 0.5) / 16) for k in range(16)]
        return sum(steps) / 32 + 0.5

    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Lambda(flat, output_shape=input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(classes),
        ]
    )
"""

USERS_GRID = """
models: [{name: stairs, factory: "users_model:stairs"}, small_cnn]
datasets: [digits]
attacks: [{name: bim, steps: 3}, {name: noise, repeats: 2}]
epsilons: [0, 0.3]
train: {epochs: 3}
examples: 60
slice: 60
"""


def test_a_users_blind_model_is_marked_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_model.py").write_text(USERS_MODEL)
    (tmp_path / "grid.yaml").write_text(USERS_GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert sweep(tmp_path / "grid.yaml", tmp_path / "out", runner=DEFAULT_RUNNER).exit_code == 0
    shown = CliRunner().invoke(app, ["table", "out", "--format", "md"])
    assert shown.exit_code == 0
    rows = [line.split("|")[1:4] for line in shown.output.splitlines() if line.startswith("| s")]
    marked = {(model.split()[0], attack.split()[0]): model.strip() for model, _, attack in rows}
    assert marked["stairs", "bim"].startswith("stairs §") and "§" not in marked["stairs", "noise"]
    assert marked["small_cnn", "bim"] == marked["small_cnn", "noise"] == "small_cnn"
    assert "§ zero gradients" in shown.output
    query = "SELECT model, attack, epsilon, flags FROM cells WHERE len(flags) > 0"
    found = CliRunner().invoke(app, ["query", "out", query, "--format", "csv"]).output.splitlines()[1:]
    assert sorted(line.split(",")[:3] for line in found) == [
        ["stairs", "bim", "0.0"],
        ["stairs", "bim", "0.3"],
    ]
    query = "SELECT bool_and((flags IS NOT NULL) = clean_correct) FROM examples WHERE model = 'stairs' "
    query += "AND attack = 'bim'"
    assert CliRunner().invoke(app, ["query", "out", query, "--format", "csv"]).output.split()[-1] == "true"
