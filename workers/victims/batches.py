"""Batches of training images, gathered from the stored arrays one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.datasets import Dataset


def image_batches(
    dataset: Dataset,
    indices: np.ndarray,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    augmentation: str = "none",
    noise: np.random.Generator | None = None,
) -> Any:
    """A `tf.data` pipeline of (float32 images in [0, 1], int64 labels) of the training split.

    With a seed, in another order each epoch. `augmentation` draws from `noise`, batch after batch.
    """
    import tensorflow as tf

    def gather(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = dataset.images("train", rows)
        if augmentation == "flip_crop" and noise is not None:
            images = flip_crop(images, noise)
        return images, dataset.labels("train", rows)

    def batch(rows: Any) -> tuple[Any, Any]:
        images, labels = tf.numpy_function(gather, [rows], [tf.float32, tf.int64])
        return tf.ensure_shape(images, (None, *dataset.shape)), tf.ensure_shape(labels, (None,))

    rows = tf.data.Dataset.from_tensor_slices(indices)
    if shuffle_seed is not None:
        rows = rows.shuffle(len(indices), seed=shuffle_seed, reshuffle_each_iteration=True)
    plain = tf.autograph.experimental.do_not_convert(
        batch
    )  # converting leaves a file in the temporary folder
    return rows.batch(batch_size).map(plain).prefetch(1)


def flip_crop(images: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Half of the images mirrored; each shifted by up to an eighth of its height and width, black beyond.

    (N, H, W, C) float32 in, a new array of the same shape out (He et al., "Deep residual learning for image
    recognition", 2016, section 4.2: 4 pixels of 32).
    """
    count, height, width, _ = images.shape
    up, left = height // 8, width // 8
    padded = np.pad(images, ((0, 0), (up, up), (left, left), (0, 0)))
    mirrored = noise.random((count, 1, 1, 1)) < 0.5
    padded = np.where(mirrored, padded[:, :, ::-1], padded)
    tops = noise.integers(0, 2 * up + 1, count)
    lefts = noise.integers(0, 2 * left + 1, count)
    rows = tops[:, None] + np.arange(height)
    columns = lefts[:, None] + np.arange(width)
    shifted: np.ndarray = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return shifted
