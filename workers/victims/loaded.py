"""A victim in memory: its network and its answers to clean images; and getting one there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.attacks.base import AttackError
from workers.datasets import Dataset, evaluation_order
from workers.unit import VictimSpec
from workers.victims.architectures import build_model
from workers.victims.cache import CleanAccuracy, Manifest, VictimCache, describe, weights_hash
from workers.victims.fitting import Report
from workers.victims.recipe import History, build_and_train
from workers.victims.saved import check_pixel_range

if TYPE_CHECKING:
    import keras

BATCH = 128
"""Images per forward pass, always: smaller batches are padded, so that nothing is traced twice."""

_ACCURACY_EXAMPLES = 1000
_PIXEL_RANGE_EXAMPLES = 256


class Victim:
    """A trained network with the test split that it is evaluated on, in evaluation order."""

    def __init__(self, model: keras.Model, dataset: Dataset, weights: str) -> None:
        import tensorflow as tf

        self.model = model
        self.dataset = dataset
        self.weights = weights  # SHA-256
        self.order = evaluation_order(dataset.y_test)
        self._clean_logits = np.zeros((len(self.order), dataset.classes), np.float32)
        self._clean_blocks: set[int] = set()
        signature = [tf.TensorSpec((BATCH, *dataset.shape), tf.float32)]
        self._forward = tf.function(lambda images: model(images, training=False), input_signature=signature)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, classes) float32 logits of (N, H, W, C) float32 images, as they are: NaN and infinity too."""
        logits = np.empty((len(images), self.dataset.classes), np.float32)
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            padded = np.resize(batch, (BATCH, *batch.shape[1:]))
            logits[start : start + BATCH] = self._forward(padded).numpy()[: len(batch)]
        return logits

    def clean_logits(self, start: int, stop: int) -> NDArray[np.float32]:
        """(stop - start, classes): the logits of the clean images at positions [start, stop), computed once.

        Always in the same blocks of positions: how a sweep is cut into units must not change a bit of them.
        """
        for block in range(start // BATCH, -(-stop // BATCH)):
            if block not in self._clean_blocks:
                rows = slice(block * BATCH, (block + 1) * BATCH)
                self._clean_logits[rows] = self.logits(self.dataset.images("test", self.order[rows]))
                self._clean_blocks.add(block)
        return self._clean_logits[start:stop]

    def clean_accuracy(self) -> CleanAccuracy:
        """On the first 1,000 of the evaluation order, whose logits are then there for the attacks.

        An answer that is not finite is wrong; AttackError if all of them are.
        """
        examples = min(_ACCURACY_EXAMPLES, len(self.order))
        labels = self.dataset.labels("test", self.order[:examples])
        logits = self.clean_logits(0, examples)
        if not metrics.answered(logits).any():
            raise AttackError("the victim answers every image with NaN or infinite logits")
        share = metrics.right(logits, labels).mean()
        counts = np.bincount(self.dataset.y_test)
        return CleanAccuracy(float(share), examples, float(counts.max() / counts.sum()))


def train_victim(
    spec: VictimSpec, dataset: Dataset, cache: VictimCache, report: Report
) -> tuple[Victim, Manifest]:
    """Train a victim by its recipe and keep its weights.

    Raises ArchitectureError, TrainingError or CacheError.
    """
    model, history = build_and_train(spec, dataset, report)
    victim = Victim(model, dataset, weights_hash(model))
    manifest = cache.publish(model, spec, history, victim.clean_accuracy())
    if manifest.weights != victim.weights:  # another worker's were there first, and the model has them now
        victim = Victim(model, dataset, manifest.weights)
    return victim, manifest


def victim_as_it_is(spec: VictimSpec, dataset: Dataset) -> tuple[Victim, Manifest]:
    """A user's own trained model. ArchitectureError unless it is a classifier of this dataset's images."""
    model = build_model(spec.model, dataset.shape, dataset.classes)
    victim = Victim(model, dataset, weights_hash(model))
    if not spec.model.get("pixel_range"):
        rows = victim.order[:_PIXEL_RANGE_EXAMPLES]
        images, labels = dataset.images("test", rows), dataset.labels("test", rows)
        check_pixel_range(model, spec.model["path"], images, labels)
    history = History(rows=(), train_examples=0, seconds=0.0)
    return victim, describe(model, spec, history, victim.clean_accuracy())
