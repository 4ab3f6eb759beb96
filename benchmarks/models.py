"""The models that attacks are timed on, with images to attack.

They need MNIST and CIFAR-10 in the folder that the environment's ROBUSTSWEEP_DATA names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.robust import train_robustly
from workers import metrics
from workers.attacks import AttackResult, build
from workers.datasets import DATA_VARIABLE, Dataset, load
from workers.network import network_for
from workers.norms import L2, LINF, Norm, NormName
from workers.unit import DatasetSpec, ModelSpec, Weights
from workers.victims.architectures import build_model


@dataclass(frozen=True)
class Bench:
    """A model to attack, and test images (N, H, W, C) with their labels (N,).

    As in a sweep, an attack is told which images the model gets right: that is found once for all attacks.
    """

    name: str
    model: Any
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def run(self, config: Mapping[str, Any], n: int, epsilons: Sequence[float]) -> AttackResult:
        return build(config)(
            self.model, self.images[:n], self.labels[:n], epsilons, clean_correct=self.clean_correct[:n]
        )

    @cached_property
    def clean_correct(self) -> NDArray[np.bool_]:
        correct: NDArray[np.bool_] = self._logits(self.images).argmax(axis=1) == self.labels
        return correct

    def accuracy(
        self, images: NDArray[np.float32], epsilons: Sequence[float], norm: Norm = LINF
    ) -> list[float]:
        """Robust accuracy (E,) of somebody's images (E, N, H, W, C), by our definitions."""
        n = images.shape[1]
        clean, labels, correct = self.images[:n], self.labels[:n], self.clean_correct[:n]
        robust = []
        for epsilon, found in zip(epsilons, images, strict=True):
            inside = metrics.within(norm.distance(clean, found), epsilon)
            robust.append(float((correct & ~(metrics.fools(self._logits(found), labels) & inside)).mean()))
        return robust

    def median_distance(self, images: NDArray[np.float32]) -> float:
        """Over the examples that are right on the clean image; a failure counts as infinitely far."""
        n = len(images)
        clean, labels, correct = self.images[:n], self.labels[:n], self.clean_correct[:n]
        # Without our margin of 1e-4 logits: other libraries do not aim at it.
        found = self._logits(images).argmax(axis=1) != labels
        return float(np.median(np.where(found, L2.distance(clean, images), np.inf)[correct]))

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return network_for(self.model, images.shape[1:]).logits(images)


def mnist_cnn(train_examples: int = 20_000, epochs: int = 2, *, strides: int = 1) -> Bench:
    """Two convolutions, a pool and a dense layer of 128 on MNIST: 98% right on clean images."""
    import keras

    data = load(DatasetSpec(name="mnist"), os.environ.get(DATA_VARIABLE))
    model = _untrained_cnn(strides)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = np.arange(train_examples)
    model.fit(data.images("train", rows), data.labels("train", rows), epochs=epochs, batch_size=64, verbose=0)
    return _mnist_bench("MNIST CNN", model, data)


def robust_cnn(norm: NormName, epsilon: float, *, train_examples: int = 10_000, epochs: int = 16) -> Bench:
    """A smaller MNIST CNN trained on adversarial images of the ball of `epsilon`: about a minute."""
    data = load(DatasetSpec(name="mnist"), os.environ.get(DATA_VARIABLE))
    rows = np.arange(train_examples)
    model = _untrained_cnn(2)
    train_robustly(
        model, data.images("train", rows), data.labels("train", rows), norm, epsilon, epochs=epochs
    )
    return _mnist_bench(f"{norm}-trained MNIST CNN", model, data)


def _untrained_cnn(strides: int) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, strides=strides, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )


def _mnist_bench(name: str, model: Any, data: Dataset) -> Bench:
    test = np.arange(1000)
    return Bench(name, model, data.images("test", test), data.labels("test", test).astype(np.int64))


def cifar_mobilenet() -> Bench:
    """MobileNetV2 0.35 with ImageNet weights at 80 pixels, its new head trained on frozen features.

    KERAS_HOME names the folder whose models/ holds the weights, unless Keras can download them.
    """
    import keras

    data = load(DatasetSpec(name="cifar10"), os.environ.get(DATA_VARIABLE))
    spec = ModelSpec(
        name="mobilenet_v2",
        options={"alpha": 0.35, "input_size": 80},
        weights=Weights(location="imagenet"),
    )
    model = build_model(spec, data.shape, data.classes)
    body = keras.Model(model.inputs[0], model.layers[-1].input)
    rows = np.arange(4000)
    features = body.predict(data.images("train", rows), batch_size=128, verbose=0)
    head = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(data.classes)])
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    head.fit(features, data.labels("train", rows), epochs=20, batch_size=64, verbose=0)
    model.layers[-1].set_weights(head.layers[-1].get_weights())
    test = np.arange(1000)
    return Bench(
        "MobileNetV2 CIFAR-10", model, data.images("test", test), data.labels("test", test).astype(np.int64)
    )
