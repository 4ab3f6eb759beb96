"""One phase of a training: a compiled model, fitted epoch by epoch, each epoch recorded and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.datasets import Dataset
from workers.defences import TrainingDefence
from workers.defences.ascent import AttackedTraining
from workers.recipe import Recipe
from workers.victims.base import TrainingError
from workers.victims.batches import image_batches
from workers.victims.progress import Listener, TrainingProgress
from workers.victims.resuming import Halfway, Keeper

if TYPE_CHECKING:
    import keras

_CLEAN_EXAMPLES = 1024  # training images that accuracy is measured on where a step does not see them clean
_ATTACKED_EXAMPLES = 64, 512  # of the validation images, at the least and at the most
_ATTACKED_SHARE = 0.1  # that attacking them may add to the gradients of an epoch

_ITERATORS = 2  # that Keras 3.15 makes for an epoch: one more behind each

_UNDER_ATTACK = "val_adversarial_loss"


@dataclass
class Record:
    """What was seen while training; `rows` as the history table has them, epochs counted through phases."""

    listen: Listener = lambda progress: None
    rows: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, phase: str, epoch: int, epochs: int) -> None:
        """Say that a phase begins, or goes on after so many epochs."""
        self.listen(TrainingProgress(phase, epoch, epochs))

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
        if _UNDER_ATTACK in logs:
            row["adversarial_accuracy"] = logs["adversarial_accuracy"]
            row["validation_adversarial_accuracy"] = logs["val_adversarial_accuracy"]
        self.rows.append(row)
        under_attack = logs.get("val_adversarial_accuracy")
        self.listen(TrainingProgress(phase, epoch, epochs, logs["val_accuracy"], under_attack))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every phase of one training shares; `training` and `validation` index the training split."""

    dataset: Dataset
    training: np.ndarray
    validation: np.ndarray
    recipe: Recipe
    seed: int
    record: Record
    defence: TrainingDefence | None = None
    keeper: Keeper | None = None
    halfway: Halfway | None = None  # where an earlier attempt was
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """That the training has taken, all attempts together."""
        before = self.halfway.seconds if self.halfway else 0.0
        return before + time.monotonic() - self.begun

    def reached(self, phase: str) -> int:
        """How many epochs of a phase an earlier attempt has been through, if that is where it was lost."""
        return self.halfway.epoch if self.halfway and self.halfway.phase == phase else 0

    def is_past(self, phase: str) -> bool:
        """Whether an earlier attempt was in a later phase."""
        return self.halfway is not None and self.halfway.phase != phase

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
        self.record.begin(phase, self.reached(phase), recipe.epochs)
        noise = np.random.default_rng(self.seed)
        training = image_batches(
            dataset,
            self.training,
            recipe.batch_size,
            shuffle_seed=self.seed,
            augmentation=recipe.augmentation,
            noise=noise,
        )
        _Phase(
            task=self,
            name=phase,
            epochs=recipe.epochs,
            training=training,
            validation=image_batches(dataset, self.validation, recipe.batch_size),
            noise=noise,
            defence=self.defence,
            before_validation=before_validation,
        ).fit(model, learning_rate)

    def fit_features(self, head: keras.Model, training: Any, validation: Any, *, phase: str) -> None:
        """Fit a head on batches of features; a defence that changes images has no part in it.

        Who computes the features says that the phase begins: they may take a while.
        """
        _Phase(
            task=self,
            name=phase,
            epochs=self.recipe.head_epochs,
            training=training,
            validation=validation,
            noise=np.random.default_rng(self.seed),
            defence=None if self.defence is None or self.defence.alters_images else self.defence,
        ).fit(head, self.recipe.learning_rate)


@dataclass(kw_only=True)
class _Phase:
    """A phase of a task, from the beginning or from where an earlier attempt was."""

    task: Task
    name: str
    epochs: int
    training: Any  # `tf.data` pipelines of batches
    validation: Any
    noise: np.random.Generator
    defence: TrainingDefence | None
    before_validation: Sequence[Callable[[], None]] = ()
    _epoch_begun: float = 0.0

    def fit(self, network: keras.Model, learning_rate: float | None) -> None:
        """Fit a model in place. TrainingError when loss or weights are not finite."""
        import keras

        task, recipe = self.task, self.task.recipe
        variables = list(network.variables)  # those of seeds too, and before compiling adds metrics
        model = self._compiled(network, learning_rate)
        stopping = _stopping(recipe.early_stopping, self.defence, self.epochs)
        optimizer, first = model.optimizer, task.reached(self.name)
        optimizer.build(model.trainable_variables)
        halfway = task.halfway
        if halfway is not None and halfway.phase == self.name:
            _assign(variables, halfway.arrays["variables"])
            _assign(optimizer.variables, halfway.arrays["optimizer"])
            stopping.restore(halfway.stopping, halfway.arrays.get("best", []))
            self.noise.bit_generator.state = halfway.noise
            if halfway.stopping.get("stopped"):
                first = self.epochs
            for _ in range(_ITERATORS * first):
                iter(self.training)  # each takes the next of the orders that follow from the seed

        def begin_epoch(epoch: int, logs: Mapping[str, float]) -> None:
            self._epoch_begun = time.perf_counter()

        def begin_test(logs: Mapping[str, float]) -> None:
            for call in self.before_validation:
                call()

        def end_epoch(epoch: int, logs: dict[str, float]) -> None:
            self._ended(model, epoch + 1, logs)

        def keep(epoch: int, logs: Mapping[str, float]) -> None:
            if task.keeper is None or not task.keeper.due:
                return
            best = stopping.best_weights or []
            state = Halfway(
                phase=self.name,
                epoch=epoch + 1,
                rows=task.record.rows,
                seconds=task.seconds,
                stopping=stopping.state(stopped=bool(model.stop_training)),
                noise=dict(self.noise.bit_generator.state),
                arrays={
                    "variables": _values(variables),
                    "optimizer": _values(optimizer.variables),
                    "best": best,
                },
            )
            task.keeper.keep(state)

        model.fit(
            self.training,
            validation_data=self.validation,
            initial_epoch=first,
            epochs=self.epochs,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=begin_epoch, on_epoch_end=end_epoch, on_test_begin=begin_test
                ),
                stopping,
                keras.callbacks.LambdaCallback(on_epoch_end=keep),
            ],
            shuffle=False,  # the batches are shuffled already
            verbose=0,
        )

    def _compiled(self, network: keras.Model, learning_rate: float | None) -> keras.Model:
        import keras

        assert learning_rate is not None  # a recipe fills its rates in
        recipe, steps = self.task.recipe, len(self.training)
        rate: Any = learning_rate
        if recipe.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(learning_rate, self.epochs * steps)
        if recipe.optimizer == "adam":
            optimizer = keras.optimizers.Adam(rate)
        else:
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
        # XLA would compile for longer than most victims here train.
        if self.defence is None:
            network.compile(
                optimizer,
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
                jit_compile=False,
            )
            return network
        from workers.victims.defended import DefendedTraining

        model = DefendedTraining(network, self.defence, seed=self.task.seed, epochs=self.epochs, steps=steps)
        model.compile(optimizer, jit_compile=False)
        return model

    def _ended(self, model: keras.Model, epoch: int, logs: dict[str, float]) -> None:
        """An epoch is through: look whether all is sound, measure what a step has not seen, record it."""
        if not math.isfinite(logs["loss"]):
            raise TrainingError(f"the loss is {logs['loss']} after epoch {epoch}; lower the learning_rate")
        # oneDNN's ReLU makes 0 of NaN, so that weights can be lost and the loss still be a number.
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            raise TrainingError(f"weights are NaN or infinite after epoch {epoch}; lower the learning_rate")
        task, size = self.task, self.task.recipe.batch_size
        if self.defence is not None and self.defence.alters_images:
            seen, rows = logs["accuracy"], task.training[:_CLEAN_EXAMPLES]
            images, labels = task.dataset.images("train", rows), task.dataset.labels("train", rows)
            logs["accuracy"] = model.accuracy(images, labels, size)
            if self.defence.attacks:
                rows = task.validation[: attacked_examples(self.defence, len(task.training))]
                images, labels = task.dataset.images("train", rows), task.dataset.labels("train", rows)
                logs["adversarial_accuracy"] = seen
                found = model.under_attack(images, labels, size)
                logs[_UNDER_ATTACK], logs["val_adversarial_accuracy"] = found
        seconds = time.perf_counter() - self._epoch_begun
        task.record.epoch(self.name, epoch, self.epochs, logs, seconds)


def attacked_examples(defence: TrainingDefence, training: int) -> int:
    """How many validation images are attacked after an epoch of so many training images."""
    least, most = _ATTACKED_EXAMPLES
    affordable = int(_ATTACKED_SHARE * training * defence.gradients / AttackedTraining.examined_gradients)
    return min(max(affordable, least), most)


def _stopping(patience: int | None, defence: TrainingDefence | None, epochs: int) -> Any:
    """Early stopping that an earlier attempt can be taken over from; never, without a patience."""
    import keras

    attacked, first = False, 0
    if isinstance(defence, AttackedTraining):
        # Before, it has not been trained at the epsilon that its name says.
        attacked, first = True, math.ceil(defence.ramp_of(epochs))

    class Stopping(keras.callbacks.EarlyStopping):  # type: ignore[misc]
        _restored: tuple[dict[str, Any], list[np.ndarray]] | None = None

        def restore(self, state: dict[str, Any], best: list[np.ndarray]) -> None:
            self._restored = state, best

        def state(self, *, stopped: bool) -> dict[str, Any]:
            said = {"wait": self.wait, "best": self.best, "best_epoch": self.best_epoch}
            return {**said, "stopped": stopped}

        def on_train_begin(self, logs: Any = None) -> None:
            super().on_train_begin(logs)
            if self._restored:
                state, best = self._restored
                self.wait, self.best, self.best_epoch = (
                    state["wait"],
                    state["best"],
                    state["best_epoch"],
                )
                self.best_weights = best or None

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if patience is not None:
                super().on_epoch_end(epoch, logs)

    return Stopping(
        # What is trained against an attack is stopped by its loss under one: by the clean one, the least
        # robust epoch would be the best (Rice, Wong and Kolter, arXiv:2002.11569).
        monitor=_UNDER_ATTACK if attacked else "val_loss",
        start_from_epoch=first,
        mode="min",
        patience=patience or 0,
        restore_best_weights=patience is not None,
    )


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in variables]


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
