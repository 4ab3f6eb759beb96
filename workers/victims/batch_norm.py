"""Batch normalisation in short trainings: statistics that are those of the data, or left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.datasets import Dataset

if TYPE_CHECKING:
    import keras

_EXAMPLES = 2048
_FOLLOWING = 0.95  # a momentum by which statistics are those of the last 20 batches or so


def batch_norms(model: keras.Model) -> list[Any]:
    """Every batch normalisation layer of a model, however deeply nested."""
    import keras

    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


@contextmanager
def following(model: keras.Model) -> Iterator[None]:
    """Have moving statistics keep up with the batches that a network is trained on, while this lasts.

    For images that are made anew in every step: they cannot be looked at again at the end of an epoch for
    less than it took to make them.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = min(layer.momentum, _FOLLOWING)
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def reestimate(model: keras.Model, dataset: Dataset, indices: np.ndarray, batch_size: int) -> None:
    """Set the moving statistics to the averages over the first 2,048 of the training images `indices`.

    The momenta of these networks (0.99 and 0.999) leave the statistics near their initial values after a
    few hundred steps; the network would then be judged, and attacked, by numbers that no image has.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    indices = indices[:_EXAMPLES]
    whole = len(indices) - len(indices) % batch_size or len(indices)
    try:
        for i, start in enumerate(range(0, whole, batch_size)):
            for layer in layers:
                layer.momentum = i / (i + 1)  # makes the moving average that of all batches so far
            model(dataset.images("train", indices[start : start + batch_size]), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
