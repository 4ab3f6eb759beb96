"""Small models that tests attack: a CNN trained on real digits in seconds, and affine ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALL_BUDGET = {"steps": 10, "queries": 20, "binary_search_steps": 2, "targeted_classes": 2, "repeats": 3}
"""Options that make any attack quick, where its strength does not matter."""


def quick(name: str, norm: str) -> dict[str, Any]:
    """The configuration of a registered attack with as small a budget as it allows for."""
    from workers.attacks import REGISTRY

    options = {one.name for one in dataclasses.fields(REGISTRY[name])}
    return {"name": name, "norm": norm, **{k: v for k, v in SMALL_BUDGET.items() if k in options}}


class Digits(NamedTuple):
    """A model mapping (N, 8, 8, 1) to 10 logits, and the images it was not trained on."""

    model: Any
    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@cache
def digits_cnn() -> Digits:
    """A CNN trained on 1,297 of scikit-learn's digits (about 4 s), with the 500 others to attack."""
    import keras
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
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
    return Digits(model, images[:500], labels[:500])


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
