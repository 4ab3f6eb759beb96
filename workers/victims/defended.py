"""A training step with a defence in it: a Keras model that is fitted in place of the network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from workers.defences.ascent import AttackedTraining
from workers.defences.base import Moment, TrainingDefence


class DefendedTraining(keras.Model):  # type: ignore[misc]
    """A network, or the head of one, whose steps are those of a defence in training.

    What is drawn follows from the seed and the number of the step, so that nothing of it has to be kept for
    a training that goes on later. Validation is plain: the cross-entropy and accuracy of images as they are.
    """

    def __init__(
        self, network: keras.Model, defence: TrainingDefence, *, seed: int, epochs: int, steps: int
    ) -> None:
        """`steps` are those of an epoch, `epochs` those of the phase."""
        super().__init__()
        self.network = network
        self.defence = defence
        self._seed, self._epochs, self._steps = seed, epochs, steps
        self._loss = keras.metrics.Mean("loss")
        self._accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
        self._examine = tf.function(self._under_attack, autograph=False, reduce_retracing=True)
        self._answer = tf.function(
            lambda images: self.answers(images, False), autograph=False, reduce_retracing=True
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss, self._accuracy]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.network(images, training=training)

    def answers(self, images: Any, training: bool) -> Any:
        """The network's logits, float32."""
        return tf.cast(self.network(images, training=training), tf.float32)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = data
        step = self.optimizer.iterations
        moment = Moment(
            seed=tf.stack([tf.constant(self._seed, tf.int32), tf.cast(step, tf.int32)]),
            epoch=tf.cast(step, tf.float32) / self._steps,
            epochs=self._epochs,
        )
        altered = self.defence.altered(self.answers, images, labels, moment)
        with tf.GradientTape() as tape:
            losses, logits = self.defence.losses(self.answers, images, altered, labels)
            loss = tf.reduce_mean(losses)
            whole = tf.add_n([loss, *self.network.losses])  # of regularised layers
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(whole, weights), weights, strict=True))
        return self._seen(whole, labels, logits)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = data
        logits = self.answers(images, False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return self._seen(tf.reduce_mean(losses), labels, logits)

    def accuracy(self, images: NDArray[np.float32], labels: NDArray[np.integer], batch_size: int) -> float:
        """On images (N, H, W, C) as they are."""
        right = [
            np.asarray(self._answer(tf.constant(images[part]))).argmax(axis=1) == labels[part]
            for part in _parts(len(images), batch_size)
        ]
        return float(np.concatenate(right).mean())

    def under_attack(
        self, images: NDArray[np.float32], labels: NDArray[np.integer], batch_size: int
    ) -> tuple[float, float]:
        """The cross-entropy and the accuracy on images as the defence examines them, the same every time.

        An image counts as right where the attack has never had it wrong, as in an evaluation.
        """
        losses, held = [], []
        for number, part in enumerate(_parts(len(images), batch_size)):
            loss, kept = self._examine(
                tf.constant(images[part]), tf.constant(labels[part], tf.int64), tf.constant([0, number])
            )
            losses.append(np.asarray(loss))
            held.append(np.asarray(kept))
        return float(np.concatenate(losses).mean()), float(np.concatenate(held).mean())

    def _under_attack(self, images: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        assert isinstance(self.defence, AttackedTraining)
        moved, held = self.defence.examined(self.answers, images, labels, seed)
        logits = self.answers(moved, False)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), held

    def _seen(self, loss: Any, labels: Any, logits: Any) -> dict[str, Any]:
        self._loss.update_state(loss, sample_weight=tf.shape(labels)[0])
        self._accuracy.update_state(labels, logits)
        return {metric.name: metric.result() for metric in self.metrics}


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
