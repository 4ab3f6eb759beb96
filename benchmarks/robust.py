"""Adversarial training, so that there are robust networks to attack."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.norms import NormName


def train_robustly(
    model: Any,
    images: NDArray[np.float32],
    labels: NDArray[np.integer],
    norm: NormName,
    epsilon: float,
    *,
    epochs: int,
    steps: int = 7,
    ramp: int = 6,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
) -> None:
    """Train on adversarial images alone: those of PGD in the ball of `epsilon` around each image.

    The radius grows over the first `ramp` epochs: at the whole of it from the first step, training may never
    leave chance. Madry et al. (arXiv:1706.06083); the same weights for the same arguments, but for rounding.
    """
    import keras
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(learning_rate)

    def losses(adversarial: Any, classes: Any, *, training: bool) -> Any:
        logits = model(adversarial, training=training)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)

    def length(changes: Any) -> Any:
        squares = tf.reduce_sum(tf.square(changes), axis=(1, 2, 3), keepdims=True)
        return tf.maximum(tf.sqrt(squares), 1e-12)

    def inside(changes: Any, radius: Any) -> Any:
        if norm == "linf":
            return tf.clip_by_value(changes, -radius, radius)
        return changes * tf.minimum(1.0, radius / length(changes))

    @tf.function(autograph=False)
    def step(clean: Any, classes: Any, noise: Any, radius: Any) -> None:
        adversarial = tf.clip_by_value(clean + inside(radius * noise, radius), 0, 1)
        for _ in range(steps):
            with tf.GradientTape() as tape:
                tape.watch(adversarial)
                value = losses(adversarial, classes, training=False)
            gradient = tape.gradient(value, adversarial)
            direction = tf.sign(gradient) if norm == "linf" else gradient / length(gradient)
            changes = inside(adversarial + radius / 4 * direction - clean, radius)
            adversarial = tf.clip_by_value(clean + changes, 0, 1)
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(losses(adversarial, classes, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    generator = np.random.default_rng(0)
    classes = labels.astype(np.int32)
    for epoch in range(epochs):
        radius = tf.constant(epsilon * min(1, (epoch + 1) / ramp), tf.float32)
        for part in np.array_split(generator.permutation(len(images)), max(1, len(images) // batch_size)):
            noise = generator.uniform(-1, 1, images[part].shape).astype(np.float32)
            step(tf.constant(images[part]), tf.constant(classes[part]), tf.constant(noise), radius)
