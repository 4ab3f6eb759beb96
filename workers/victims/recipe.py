"""How a victim is trained: deterministically, from its recipe and seed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as options_dataclass

from workers.datasets import Dataset, stratified_order
from workers.unit import VictimSpec
from workers.victims.architectures import build_model

if TYPE_CHECKING:
    import keras

_ORDER_SEED = 2
_VALIDATION_SHARE = 0.1


class TrainingError(Exception):
    """Training that came to nothing; the message says why."""


@options_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """Adam (Kingma and Ba, 2015) on cross-entropy; its learning rate falls to 0 along a cosine.

    A tenth of the examples is held out, for the history only.
    """

    VERSION: ClassVar[int] = 1

    epochs: int = Field(strict=True, default=5, ge=1)
    batch_size: int = Field(strict=True, default=64, ge=1)
    learning_rate: float = Field(strict=True, default=1e-3, gt=0, allow_inf_nan=False)
    examples: int | None = Field(
        default=None, ge=2
    )  # the first so many of a fixed, stratified order; None: all


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How training went; `rows` as the history table has them, one an epoch, counted from 1."""

    rows: tuple[Mapping[str, Any], ...]
    train_examples: int
    seconds: float


def build_and_train(victim: VictimSpec, dataset: Dataset) -> tuple[keras.Model, History]:
    """Build a victim's network and train it, both from the victim's seed.

    Raises ArchitectureError or TrainingError.
    """
    import keras

    given = {key: value for key, value in victim.recipe.items() if key != "version"}
    recipe = Recipe(**given)
    keras.utils.set_random_seed(victim.seed)
    model = build_model(victim.model, dataset.shape, dataset.classes)
    return model, train(model, dataset, recipe, victim.seed)


def train(model: keras.Model, dataset: Dataset, recipe: Recipe, seed: int) -> History:
    """Train a model in place. TrainingError when the loss is no longer finite.

    Bit for bit the same on one type of CPU with one number of threads, if the model's own randomness was
    seeded before it was built.
    """
    import keras
    import tensorflow as tf

    order = stratified_order(dataset.y_train, _ORDER_SEED)[: recipe.examples]
    held_out = math.ceil(len(order) * _VALIDATION_SHARE)
    if len(order) <= held_out:
        raise TrainingError(f"{len(order)} training examples; at least 2 are needed")
    training = _batches(tf, dataset, order[held_out:], recipe.batch_size, shuffle_seed=seed)
    validation = _batches(tf, dataset, order[:held_out], recipe.batch_size)

    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, recipe.epochs * len(training))
    model.compile(
        keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA would compile for longer than most victims here train
    )
    rows: list[dict[str, Any]] = []
    begun = epoch_begun = time.perf_counter()

    def begin_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        nonlocal epoch_begun
        epoch_begun = time.perf_counter()

    def end_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} after epoch {epoch + 1}; lower the learning_rate"
            )
        rows.append(
            {
                "epoch": epoch + 1,
                "loss": logs["loss"],
                "accuracy": logs["accuracy"],
                "validation_loss": logs["val_loss"],
                "validation_accuracy": logs["val_accuracy"],
                "seconds": time.perf_counter() - epoch_begun,
            }
        )

    record = keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch, on_epoch_end=end_epoch)
    model.fit(
        training,
        validation_data=validation,
        epochs=recipe.epochs,
        callbacks=[record],
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    )
    return History(
        rows=tuple(rows), train_examples=len(order) - held_out, seconds=time.perf_counter() - begun
    )


def _batches(
    tf: Any, dataset: Dataset, indices: np.ndarray, batch_size: int, shuffle_seed: int | None = None
) -> Any:
    """Batches of (float32 images in [0, 1], labels), gathered from the stored arrays one batch at a time."""

    def gather(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return dataset.images("train", rows), dataset.labels("train", rows)

    def batch(rows: Any) -> tuple[Any, Any]:
        images, labels = tf.numpy_function(gather, [rows], [tf.float32, tf.int64])
        return tf.ensure_shape(images, (None, *dataset.shape)), tf.ensure_shape(labels, (None,))

    rows = tf.data.Dataset.from_tensor_slices(indices)
    if shuffle_seed is not None:
        rows = rows.shuffle(len(indices), seed=shuffle_seed, reshuffle_each_iteration=True)
    return rows.batch(batch_size).map(batch).prefetch(1)
