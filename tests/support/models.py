"""Small models that tests attack: CNNs trained on real images in seconds, and affine ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from benchmarks.robust import train_robustly
from tests.support.real_data import MARKS, REAL_DATA
from workers.norms import NormName
from workers.unit import DatasetSpec

SMALL_BUDGET = {
    "steps": 10,
    "restarts": 1,
    "queries": 20,
    "binary_search_steps": 2,
    "targeted_classes": 2,
    "repeats": 3,
}
"""Options that make any attack quick, where its strength does not matter."""


def quick(name: str, norm: str) -> dict[str, Any]:
    """The configuration of a registered attack with as small a budget as it allows for."""
    from workers.attacks import REGISTRY

    options = {one.name for one in dataclasses.fields(REGISTRY[name])}
    return {"name": name, "norm": norm, **{k: v for k, v in SMALL_BUDGET.items() if k in options}}


class Trained(NamedTuple):
    """A model mapping (N, H, W, C) to 10 logits, and images it was not trained on."""

    model: Any
    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scikit-learn's digits, shuffled: images (N, 8, 8, 1) and labels (N,); the first 500 are to attack."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return (digits.images[order, :, :, None] / 16).astype(np.float32), digits.target[order].astype(np.int64)


@cache
def robust_digits_cnn(norm: NormName) -> Trained:
    """A CNN trained on adversarial digits (some 10 s), of Linf 0.2 or L2 1.2, and 200 digits to attack."""
    import keras

    images, labels = _digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    epsilon = {"linf": 0.2, "l2": 1.2}[norm]
    train_robustly(model, images[500:], labels[500:], norm, epsilon, epochs=20, learning_rate=3e-3)
    return Trained(model, images[:200], labels[:200])


@cache
def digits_cnn() -> Trained:
    """A CNN trained on 1,297 of scikit-learn's digits (about 4 s), with the 500 others to attack."""
    import keras

    images, labels = _digits()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(images[500:], labels[500:], batch_size=64, epochs=15, verbose=0)
    return Trained(model, images[:500], labels[:500])


VICTIMS = ["digits", *(pytest.param(name, marks=MARKS) for name in ("mnist", "cifar10"))]
"""What `trained` knows, as parameters of a test: the digits always, the others where they are."""

SCALES = {
    ("digits", "l2"): 1.0,
    ("digits", "linf"): 1.0,
    ("mnist", "l2"): 1.5,
    ("mnist", "linf"): 1.0,
    ("cifar10", "l2"): 0.6,
    ("cifar10", "linf"): 0.1,
}
"""How far its images are from the boundary, roughly, when the digits are 1 away."""


@cache
def trained(name: str) -> Trained:
    """The digits' CNN, or a smaller one for `mnist` or `cifar10` (seconds): 500 and 300 images to attack."""
    if name == "digits":
        return digits_cnn()
    import keras

    from workers.datasets import load

    data = load(DatasetSpec(name=name), str(REAL_DATA))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(data.shape),
            keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows, held_out = np.arange(5000), np.arange(300)
    epochs = 2 if name == "mnist" else 6
    model.fit(data.images("train", rows), data.labels("train", rows), batch_size=64, epochs=epochs, verbose=0)
    return Trained(model, data.images("test", held_out), data.labels("test", held_out).astype(np.int64))


def affine(weights: ArrayLike, biases: ArrayLike) -> Callable[[Any], Any]:
    """A TensorFlow callable: logits = flattened images @ weights (D, K) + biases (K,)."""
    import tensorflow as tf

    matrix, offset = tf.constant(weights, tf.float32), tf.constant(biases, tf.float32)

    def model(images: Any) -> Any:
        return tf.reshape(images, (-1, matrix.shape[0])) @ matrix + offset

    return model


def random_affine(shape: tuple[int, int, int], classes: int, seed: int) -> Callable[[Any], Any]:
    """An affine model of (H, W, C) images with standard normal weights, balanced around mid-grey."""
    weights = np.random.default_rng(seed).normal(size=(int(np.prod(shape)), classes))
    return affine(weights, -0.5 * weights.sum(axis=0))
