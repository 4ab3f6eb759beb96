"""Architectures and training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.victims_for_tests import victim_spec
from workers.datasets import Dataset, load
from workers.victims.architectures import ARCHITECTURES, ArchitectureError, build_model
from workers.victims.recipe import Recipe, TrainingError, build_and_train

pytestmark = pytest.mark.tf

FACTORIES = """
import keras


def linear(*, bias=True, input_shape, classes):
    flat = keras.layers.Flatten()
    return keras.Sequential([keras.Input(input_shape), flat, keras.layers.Dense(classes, use_bias=bias)])


def softmax(*, input_shape, classes):
    return keras.Sequential([linear(input_shape=input_shape, classes=classes), keras.layers.Softmax()])


def too_many(*, input_shape, classes):
    return linear(input_shape=input_shape, classes=classes + 1)


def other_shape(*, input_shape, classes):
    return linear(input_shape=(5, 5, 2), classes=classes)


def nothing(*, input_shape, classes):
    return None
"""


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load({"name": "digits"})


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "nets_for_tests.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nets_for_tests", raising=False)
    return "nets_for_tests"


@pytest.mark.parametrize("shape", [(8, 8, 1), (11, 9, 4), (32, 32, 3)])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_architectures_map_images_of_any_size_to_logits(name: str, shape: tuple[int, int, int]) -> None:
    model = build_model({"name": name, "version": 1, "width": 3}, shape, 7)
    images = np.random.default_rng(0).random((5, *shape), dtype=np.float32)
    logits = model(images).numpy()
    assert logits.shape == (5, 7) and logits.dtype == np.float32
    assert not np.allclose(logits.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_gradients_reach_the_images(name: str) -> None:
    import tensorflow as tf

    model = build_model({"name": name}, (8, 8, 1), 10)
    images = tf.constant(np.random.default_rng(0).random((3, 8, 8, 1), dtype=np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(model(images)[:, 0])
    assert np.abs(tape.gradient(total, images).numpy()).max(axis=(1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ({"name": "smal_cnn"}, (8, 8, 1), 'unknown model "smal_cnn"; allowed: small_cnn, wide_cnn'),
        ({"name": "small_cnn"}, (8, 7, 1), "at least 8 pixels; found 8×7"),
        ({"name": "small_cnn", "width": 0}, (8, 8, 1), "width"),
        ({"name": "small_cnn", "width": True}, (8, 8, 1), "width"),
        ({"name": "small_cnn", "depth": 3}, (8, 8, 1), "depth"),
    ],
)
def test_wrong_models_are_refused(model: dict[str, Any], shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_model(model, shape, 10)


def test_a_users_constructor_gets_its_options(factories: str) -> None:
    mapping = {"name": "mine", "source": "0" * 64, "factory": f"{factories}:linear", "bias": False}
    assert build_model(mapping, (8, 8, 1), 10).count_params() == 640


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("softmax", "answers with probabilities; logits are needed"),
        ("too_many", r"maps \(4, 8, 8, 1\) to \(4, 11\); \(4, 10\) is allowed"),
        ("other_shape", r"cannot take images of shape \(8, 8, 1\)"),
        ("nothing", "returned a NoneType"),
        ("absent", 'cannot import "nets_for_tests:absent"'),
    ],
)
def test_what_is_no_victim_is_refused(factories: str, name: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        build_model({"name": "mine", "factory": f"{factories}:{name}"}, (8, 8, 1), 10)


def test_training_is_bit_identical_by_seed(digits: Dataset) -> None:
    spec = victim_spec()
    np.random.seed(99)  # what came before must not matter
    first, history = build_and_train(spec, digits)
    np.random.random(7)
    again, _ = build_and_train(spec, digits)
    other, _ = build_and_train(victim_spec(seed=1), digits)
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first.get_weights(), other.get_weights(), strict=True))
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4]
    assert history.train_examples == 1297 - 130
    losses = [row["loss"] for row in history.rows]
    assert losses == sorted(losses, reverse=True)
    assert all(row["seconds"] > 0 for row in history.rows)


def test_the_recipe_limits_the_examples(digits: Dataset) -> None:
    recipe = {"version": 1, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "examples": 40}
    _, history = build_and_train(victim_spec(recipe=recipe), digits)
    assert history.train_examples == 36


def test_a_loss_that_is_not_finite_stops_training(digits: Dataset) -> None:
    recipe = {"version": 1, "epochs": 3, "batch_size": 32, "learning_rate": 1e30}
    with pytest.raises(TrainingError, match="after epoch 1; lower the learning_rate"):
        build_and_train(victim_spec(recipe=recipe), digits)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_thirty_epochs_learn_the_digits(name: str, digits: Dataset) -> None:
    recipe = {"version": 1, "epochs": 30}
    model, history = build_and_train(victim_spec(model={"name": name, "version": 1}, recipe=recipe), digits)
    right = model(digits.x_test).numpy().argmax(axis=1) == digits.y_test
    assert right.mean() >= 0.95
    assert history.rows[-1]["validation_accuracy"] >= 0.9


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": "64"}, {"learning_rate": float("inf")}, {"examples": 1}, {"epoch": 5}],
)
def test_wrong_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Recipe(**wrong)
