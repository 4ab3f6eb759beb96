"""One phase of a training: a compiled model, fitted epoch by epoch, each epoch recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.datasets import Dataset
from workers.recipe import Recipe
from workers.victims.base import TrainingError
from workers.victims.batches import image_batches
from workers.victims.progress import Listener, TrainingProgress

if TYPE_CHECKING:
    import keras


@dataclass
class Record:
    """What was seen while training; `rows` as the history table has them, epochs counted through phases."""

    listen: Listener = lambda progress: None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, phase: str, epochs: int) -> None:
        self.listen(TrainingProgress(phase, 0, epochs))

    def epoch(self, phase: str, epoch: int, epochs: int, logs: Mapping[str, float], seconds: float) -> None:
        row = {
            "epoch": len(self.rows) + 1,
            "phase": phase,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "validation_loss": logs["val_loss"],
            "validation_accuracy": logs["val_accuracy"],
            "seconds": seconds,
        }
        self.rows.append(row)
        self.listen(TrainingProgress(phase, epoch, epochs, logs["val_accuracy"]))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every phase of one training shares; `training` and `validation` index the training split."""

    dataset: Dataset
    training: np.ndarray
    validation: np.ndarray
    recipe: Recipe
    seed: int
    record: Record

    def fit_images(
        self,
        model: keras.Model,
        *,
        phase: str,
        learning_rate: float | None,
        before_validation: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Fit the trainable layers of a victim for the recipe's epochs."""
        recipe, dataset = self.recipe, self.dataset
        self.record.begin(phase, recipe.epochs)
        training = image_batches(
            dataset,
            self.training,
            recipe.batch_size,
            shuffle_seed=self.seed,
            augmentation=recipe.augmentation,
        )
        validation = image_batches(dataset, self.validation, recipe.batch_size)
        fit(
            model,
            training,
            validation,
            recipe,
            self.record,
            phase=phase,
            epochs=recipe.epochs,
            learning_rate=learning_rate,
            before_validation=before_validation,
        )


def fit(
    model: keras.Model,
    training: Any,
    validation: Any,
    recipe: Recipe,
    record: Record,
    *,
    phase: str,
    epochs: int,
    learning_rate: float | None,
    before_validation: Sequence[Callable[[], None]] = (),
) -> None:
    """Fit a model in place on `tf.data` pipelines. TrainingError when loss or weights are not finite."""
    import keras

    assert learning_rate is not None  # a recipe fills its rates in

    rate: Any = learning_rate
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(training))
    if recipe.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate)
    else:
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # XLA would compile for longer than most victims here train
    )
    begun = time.perf_counter()

    def begin_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        nonlocal begun
        begun = time.perf_counter()

    def begin_test(logs: Mapping[str, float]) -> None:
        for call in before_validation:
            call()

    def end_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} after epoch {epoch + 1}; lower the learning_rate"
            )
        # oneDNN's ReLU makes 0 of NaN, so that weights can be lost and the loss still be a number.
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            raise TrainingError(
                f"weights are NaN or infinite after epoch {epoch + 1}; lower the learning_rate"
            )
        record.epoch(phase, epoch + 1, epochs, logs, time.perf_counter() - begun)

    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_begin=begin_epoch, on_epoch_end=end_epoch, on_test_begin=begin_test
        )
    ]
    if recipe.early_stopping is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor="val_loss", patience=recipe.early_stopping, restore_best_weights=True
            )
        )
    model.fit(
        training,
        validation_data=validation,
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    )
