"""A victim in memory: its network, and its answers to clean images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers.attacks.base import AttackError
from workers.datasets import Dataset, evaluation_order

if TYPE_CHECKING:
    import keras

BATCH = 128
"""Images per forward pass, always: smaller batches are padded, so that nothing is traced twice."""


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
        """(N, classes) float32 logits of (N, H, W, C) float32 images. AttackError for NaN or infinity."""
        logits = np.empty((len(images), self.dataset.classes), np.float32)
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            padded = np.resize(batch, (BATCH, *batch.shape[1:]))
            logits[start : start + BATCH] = self._forward(padded).numpy()[: len(batch)]
        if not np.isfinite(logits).all():
            raise AttackError("the victim answers with NaN or infinite logits")
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
