"""Training against attacks: what an epoch costs over what its gradients cost alone, in CPU seconds.

Needs MNIST in the folder that the environment's ROBUSTSWEEP_DATA names. One thread, as a worker of one CPU.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.reading import Reading
from workers.datasets import DATA_VARIABLE, Dataset, load
from workers.defences import TrainingDefence, in_training
from workers.losses import value_and_slope
from workers.network import network_for
from workers.norms import LINF
from workers.recipe import Recipe
from workers.runtime import set_up_tensorflow
from workers.unit import DatasetSpec, DefenceSpec, ModelSpec, VictimSpec
from workers.victims.architectures import build_model
from workers.victims.progress import TrainingProgress
from workers.victims.training import build_and_train

_EXAMPLES, _BATCH, _EPSILON = 6000, 64, 0.2
_EPOCHS = 3  # timed, after one that traces

DEFENCES = (
    DefenceSpec(name="adversarial_training", options={"epsilon": _EPSILON}, in_training=True),
    DefenceSpec(
        name="adversarial_training", options={"epsilon": _EPSILON, "attack": "fgsm"}, in_training=True
    ),
    DefenceSpec(name="trades", options={"epsilon": _EPSILON}, in_training=True),
)


def measure() -> Iterator[Reading]:
    """Each training's epochs, validation and all, over their floor; then one attack by two kinds of loop."""
    set_up_tensorflow(cpus=1, gpus=0)
    data = load(DatasetSpec(name="mnist"), os.environ.get(DATA_VARIABLE))
    for model in (ModelSpec(name="small_cnn"), ModelSpec(name="wide_cnn")):
        calls = _Calls(model, data)
        for spec in DEFENCES:
            defence = in_training(spec)
            assert defence is not None
            name = f"{spec.name} {spec.options.get('attack', '')}".strip()
            yield Reading(
                what=f"{model.name}, {name}: an epoch / its gradients alone",
                value=_over_floor(model, spec, data, partial(calls.floor, defence)),
                unit="×",
                at_most=1.3,
            )
        traced, engine = calls.in_turn(calls.traced, calls.engine)
        yield Reading(
            what=f"{model.name}, 7 steps of pgd by the engine / in one traced loop",
            value=engine / traced,
            unit="×",
        )


def _over_floor(model: ModelSpec, defence: DefenceSpec, data: Dataset, floor: Callable[[], float]) -> float:
    """The median over epochs of the CPU seconds of one over its floor, measured before and after it."""
    recipe = Recipe(epochs=_EPOCHS + 1, examples=_EXAMPLES, batch_size=_BATCH)
    victim = VictimSpec(
        victim_id="timed", model=model, dataset=DatasetSpec(name="mnist"), recipe=recipe, defence=defence
    )
    seconds, floors, begun = [], [], 0.0

    def listen(progress: TrainingProgress) -> None:
        nonlocal begun
        seconds.append(time.process_time() - begun)
        floors.append(floor())
        begun = time.process_time()

    build_and_train(victim, data, listen)
    return statistics.median(
        # What comes first is the beginning, then an epoch that traces.
        spent / statistics.mean(around)
        for spent, around in zip(seconds[2:], pairwise(floors[1:]), strict=True)
    )


class _Calls:
    """The calls that a training cannot do without, each traced alone, on one batch."""

    def __init__(self, model: ModelSpec, data: Dataset) -> None:
        import keras
        import tensorflow as tf

        self.network = build_model(model, data.shape, data.classes)
        self.images = data.images("train", np.arange(_BATCH))
        self.labels = data.labels("train", np.arange(_BATCH)).astype(np.int32)
        self._batch = tf.constant(self.images), tf.constant(self.labels)
        optimizer = keras.optimizers.Adam()
        weights = self.network.trainable_variables
        optimizer.build(weights)

        @tf.function(autograph=False)
        def step(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = self.network(images, training=True)
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            return loss

        @tf.function(autograph=False)
        def gradient(images: Any, labels: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                logits = self.network(images, training=False)
            _, slope = value_and_slope("raw_cross_entropy", logits, labels, labels)
            return tape.gradient(logits, images, output_gradients=slope)

        made = in_training(DEFENCES[0])
        assert made is not None

        @tf.function(autograph=False)
        def attacked(images: Any, labels: Any) -> Any:
            from workers.defences.base import Moment

            moment = Moment(tf.constant([0, 0]), tf.constant(1.0), 1)
            return made.altered(
                lambda batch, training: self.network(batch, training=training), images, labels, moment
            )

        self._step, self._gradient, self._attacked = step, gradient, attacked
        self.engine()  # traces

    def floor(self, defence: TrainingDefence) -> float:
        """Seconds that the gradients of an epoch take alone, one call after another."""
        step, gradient = self.in_turn(lambda: self._step(*self._batch), lambda: self._gradient(*self._batch))
        batches = -(-(_EXAMPLES - _EXAMPLES // 10) // _BATCH)
        by_weights = 2 if defence.name == "trades" else 1  # of clean and of moved images
        return batches * ((defence.gradients - by_weights) * gradient + by_weights * step)

    def traced(self) -> Any:
        return self._attacked(*self._batch)

    def engine(self) -> Any:
        """The same steps, projections and all, as attacks take them: NumPy between calls."""
        network, generator = network_for(self.network, self.images.shape[1:]), np.random.default_rng(0)
        radius = np.float32(_EPSILON)
        noise = 2 * generator.random(self.images.shape, np.float32) - 1
        found = LINF.confine(self.images + radius * noise, self.images, radius)
        for _ in range(7):
            _, _, gradients = network.gradients(found, self.labels, loss="raw_cross_entropy")
            found = LINF.confine(found + radius / 4 * LINF.direction(gradients), self.images, radius)
        return found

    def in_turn(self, *calls: Callable[[], Any], times: int = 3, each: int = 4) -> list[float]:
        """Median CPU seconds of each of some calls, which take turns."""
        for call in calls:
            call()
        seconds: list[list[float]] = [[] for _ in calls]
        for _ in range(times):
            for call, found in zip(calls, seconds, strict=True):
                begun = time.process_time()
                for _ in range(each):
                    call()
                found.append((time.process_time() - begun) / each)
        return [statistics.median(found) for found in seconds]
