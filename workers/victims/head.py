"""Training a new head on what a frozen, pretrained backbone makes of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workers.datasets import Dataset
from workers.victims.base import BACKBONE
from workers.victims.fitting import Task

if TYPE_CHECKING:
    import keras

_BATCH = 128


def frozen_features(model: keras.Model, dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """(N, F) float32: the pooled features of training images, with every layer in inference mode."""
    import tensorflow as tf

    forward = tf.function(
        lambda images: model(images, training=False),
        input_signature=[tf.TensorSpec((None, *dataset.shape), tf.float32)],
        autograph=False,
    )
    batches = [
        forward(dataset.images("train", indices[start : start + _BATCH])).numpy()
        for start in range(0, len(indices), _BATCH)
    ]
    return np.concatenate(batches)


def train_head(model: keras.Model, task: Task) -> keras.Model:
    """Train a model's last layer alone, on features computed once; return the backbone before it."""
    import keras
    import tensorflow as tf

    recipe, dataset = task.recipe, task.dataset
    if task.is_past("head"):  # the weights to come hold what it came to
        return model.get_layer(BACKBONE)
    task.record.begin("head", task.reached("head"), recipe.head_epochs)
    head = model.layers[-1]
    extractor = keras.Model(model.inputs[0], head.input)

    def examples(indices: np.ndarray) -> Any:
        features = frozen_features(extractor, dataset, indices)
        return tf.data.Dataset.from_tensor_slices((features, dataset.labels("train", indices)))

    count = len(task.training)
    training = examples(task.training).shuffle(count, seed=task.seed, reshuffle_each_iteration=True)
    task.fit_features(
        keras.Sequential([keras.Input(head.input.shape[1:]), head]),
        training.batch(recipe.batch_size),
        examples(task.validation).batch(recipe.batch_size),
        phase="head",
    )
    return model.get_layer(BACKBONE)
