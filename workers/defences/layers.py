"""The Keras side of defences: a layer that transforms images, and a network behind one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Transform = Callable[[Any], Any]
"""Images (N, H, W, C), a float32 tensor, to images of the same shape."""


class Transformation(keras.layers.Layer):  # type: ignore[misc]
    """Images (N, H, W, C) transformed, their gradient that of `surrogate` where one is given.

    `seed` is the `keras.random.SeedGenerator` that the transformation draws from, if any: as the layer's own,
    it is among the state that a victim's draws are keyed by.
    """

    def __init__(
        self,
        transform: Transform,
        surrogate: Transform | None = None,
        *,
        seed: keras.random.SeedGenerator | None = None,
        compiles: bool = True,
    ) -> None:
        super().__init__()
        self._transform, self._surrogate, self._seed = transform, surrogate, seed
        self.supports_jit = compiles

    def call(self, images: Any) -> Any:
        if self._surrogate is None:
            return self._transform(images)
        return replaced_gradient(self._transform, self._surrogate)(images)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Defended(keras.Model):  # type: ignore[misc]
    """A network that is given images (N, H, W, C) as a layer has transformed them; its logits (N, K)."""

    def __init__(self, transformation: keras.layers.Layer, network: keras.Model) -> None:
        super().__init__()
        self.transformation, self.network = transformation, network

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.network(self.transformation(images), training=training)


def replaced_gradient(transform: Transform, surrogate: Transform) -> Transform:
    """A function that computes `transform`, and whose gradient is that of `surrogate` at the same images."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(images: Any) -> Any:
        def backward(upstream: Any, variables: Any = None) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                approximated = surrogate(images)
            gradient = tape.gradient(approximated, images, output_gradients=upstream)
            # Weights of the transformation are not trained, and TensorFlow asks for them all the same.
            return gradient if variables is None else (gradient, [None] * len(variables))

        return transform(images), backward

    replaced: Transform = function
    return replaced
