"""The trained networks inside the victims of the zoo, plain and robust."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workers.datasets import Dataset
from workers.unit import ModelSpec
from workers.victims.architectures import build_model

if TYPE_CHECKING:
    import keras

BATCH = 64
PGD_STEPS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much training a dataset's networks get; `linf` and `l2`: the epsilons of adversarial training."""

    examples: int
    epochs: int
    robust_epochs: int
    width: int
    linf: float
    l2: float
    sigma: float  # of the noise that `noisy` is trained with
    mean: float  # of the pixels, for `normalised`
    std: float


def train(name: str, dataset: Dataset, plan: Plan) -> keras.Model:
    """One of `benchmarks.zoo.BASES` for a dataset's images: the same from the same seed."""
    import keras

    keras.utils.set_random_seed(0)
    rows = np.arange(min(plan.examples, len(dataset.y_train)))
    images, labels = dataset.images("train", rows), dataset.labels("train", rows).astype(np.int64)
    network = _ARCHITECTURES[name](dataset, plan)
    if name.startswith("robust_"):
        norm = name.removeprefix("robust_")
        _train_adversarially(network, images, labels, norm, getattr(plan, norm), plan.robust_epochs)
        return network
    if name == "normalised":
        images = ((images - plan.mean) / plan.std).astype(np.float32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss)
    network.fit(images, labels, batch_size=BATCH, epochs=plan.epochs, verbose=0)
    return network


def train_all(names: tuple[str, ...], dataset: Dataset, plan: Plan, folder: Path) -> None:
    """Train those that `folder` does not hold yet, `<name>.keras` each."""
    for name in names:
        if not (folder / f"{name}.keras").exists():
            train(name, dataset, plan).save(folder / f"{name}.keras")


# -- architectures ----------------------------------------------------------------------------------------


def _registered(name: str) -> Callable[[Dataset, Plan], keras.Model]:
    def build(dataset: Dataset, plan: Plan) -> keras.Model:
        spec = ModelSpec(name=name, options={"width": plan.width})
        return build_model(spec, dataset.shape, dataset.classes)

    return build


def _sequential(*kinds: str) -> Callable[[Dataset, Plan], keras.Model]:
    """Two convolutions, each followed by one of the `kinds` of layer, and a dense layer behind them."""

    def build(dataset: Dataset, plan: Plan) -> keras.Model:
        from keras import Sequential, layers

        made: dict[str, Callable[[], Any]] = {
            "batch_norm": lambda: layers.BatchNormalization(momentum=0.9),
            "dropout": lambda: layers.Dropout(0.3),
        }
        blocks = []
        for width in (plan.width, 2 * plan.width):
            blocks += [
                layers.Conv2D(width, 3, padding="same"),
                *(made[kind]() for kind in kinds),
                layers.ReLU(),
                layers.MaxPooling2D(),
            ]
        head = [layers.Flatten(), layers.Dense(dataset.classes)]
        return Sequential([layers.Input(dataset.shape), *blocks, *head])

    return build


def _mlp(dataset: Dataset, plan: Plan) -> keras.Model:
    from keras import Sequential, layers

    hidden = [
        layers.Dense(16 * plan.width, activation="relu"),
        layers.Dense(8 * plan.width, activation="relu"),
    ]
    return Sequential([layers.Input(dataset.shape), layers.Flatten(), *hidden, layers.Dense(dataset.classes)])


def _noisy(dataset: Dataset, plan: Plan) -> keras.Model:
    from keras import Sequential, layers

    inside = _registered("small_cnn")(dataset, plan)
    return Sequential([layers.Input(dataset.shape), layers.GaussianNoise(plan.sigma), inside])


_ARCHITECTURES: dict[str, Callable[[Dataset, Plan], keras.Model]] = {
    "small": _registered("small_cnn"),
    "wide": _registered("wide_cnn"),
    "mlp": _mlp,
    "batch_norm": _sequential("batch_norm"),
    "dropout": _sequential("dropout"),
    "noisy": _noisy,
    "normalised": _sequential(),
    "robust_linf": _registered("small_cnn"),
    "robust_l2": _registered("small_cnn"),
}


# -- adversarial training ---------------------------------------------------------------------------------


def _train_adversarially(
    network: keras.Model,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    norm: str,
    epsilon: float,
    epochs: int,
) -> None:
    """PGD training (Madry et al., arXiv:1706.06083); epsilon rises over the first third of the epochs, since
    networks this small may never leave chance at the whole of it."""
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(2e-3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def steepest(gradient: Any) -> Any:
        if norm == "linf":
            return tf.sign(gradient)
        return gradient / (
            tf.norm(tf.reshape(gradient, (tf.shape(gradient)[0], -1)), axis=1)[:, None, None, None] + 1e-12
        )

    def inside(change: Any, radius: Any) -> Any:
        if norm == "linf":
            return tf.clip_by_value(change, -radius, radius)
        length = tf.norm(tf.reshape(change, (tf.shape(change)[0], -1)), axis=1)[:, None, None, None]
        return change * tf.minimum(1.0, radius / (length + 1e-12))

    @tf.function(autograph=False)
    def step(clean: Any, right: Any, radius: Any) -> None:
        change = inside(tf.random.uniform(tf.shape(clean), -1.0, 1.0) * radius, radius)
        for _ in range(PGD_STEPS):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(change)
                value = loss(right, network(tf.clip_by_value(clean + change, 0, 1), training=False))
            gradient = tape.gradient(value, change)
            change = inside(change + 2.5 * radius / PGD_STEPS * steepest(gradient), radius)
        with tf.GradientTape() as tape:
            value = loss(right, network(tf.clip_by_value(clean + change, 0, 1), training=True))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    order = np.random.default_rng(0)
    for epoch in range(epochs):
        radius = tf.constant(epsilon * min(1.0, (epoch + 1) / (epochs / 3)), tf.float32)
        mixed = order.permutation(len(images))
        for start in range(0, len(mixed) - BATCH + 1, BATCH):
            rows = mixed[start : start + BATCH]
            step(tf.constant(images[rows]), tf.constant(labels[rows]), radius)
