"""A model's logits and input gradients: traced once, computed in batches of a few fixed sizes."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZES = {"CPU": (8, 16, 32, 64), "GPU": (32, 128, 512)}
"""Images per call. Kernels are prepared per size (oneDNN, cuDNN), so a batch is padded up to one of these.

On CPUs, more than 64 gains nothing: from there on the activations fall out of the caches.
"""


class AttackError(RuntimeError):
    """The model or the images make attacking meaningless; the message says what was found."""


class Network:
    """What an attack sees of a model: logits and gradients as NumPy arrays, any number of images a call.

    Each of the two functions is traced once; the model itself is not kept alive.
    """

    def __init__(self, model: Callable[..., Any], image_shape: tuple[int, ...]) -> None:
        import tensorflow as tf

        # A strong reference here would keep the model alive for as long as the cache below holds its traces.
        reference = weakref.ref(model)
        options = {"training": False} if _takes_training(model) else {}
        images_spec = tf.TensorSpec((None, *image_shape), tf.float32)
        labels_spec = tf.TensorSpec((None,), tf.int32)

        def call(images: Any) -> Any:
            return tf.cast(reference()(images, **options), tf.float32)  # type: ignore[misc]

        def forward(images: Any) -> Any:
            return (call(images),)

        def backward(images: Any, labels: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                logits = call(images)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # Summed over the batch, never averaged: an image's gradient must not know its neighbours.
            return logits, tape.gradient(loss, images)

        self._forward = tf.function(forward, input_signature=[images_spec])
        self._backward = tf.function(backward, input_signature=[images_spec, labels_spec])
        self._exhausted = tf.errors.ResourceExhaustedError
        self._sizes = BATCH_SIZES["GPU" if tf.config.list_logical_devices("GPU") else "CPU"]
        self.batch_size = self._sizes[-1]  # halved whenever memory runs out

    @property
    def traces(self) -> int:
        """How often the model has been traced: at most once for each of the two functions."""
        return sum(f.experimental_get_tracing_count() for f in (self._forward, self._backward))

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, K) float32 logits of (N, H, W, C) images, N ≥ 1. AttackError where they are not finite."""
        (logits,) = self._in_batches(self._forward, images)
        return check_finite(logits, "the model's logits")

    def logits_and_gradients(
        self, images: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (N, K), and gradients (N, H, W, C) of each image's own cross-entropy; N ≥ 1.

        AttackError where either is not finite, or where no gradient flows at all.
        """
        logits, gradients = self._in_batches(self._backward, images, labels)
        return check_finite(logits, "the model's logits"), check_finite(gradients, "the model's gradients")

    def _in_batches(self, function: Callable[..., Any], *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        total, start, outputs = len(inputs[0]), 0, []
        while start < total:
            stop = min(start + self.batch_size, total)
            size = min(self.batch_size, next(size for size in self._sizes if size >= stop - start))
            # The last row again as padding: real data, so that it meets no numerical trouble of its own.
            rows = np.minimum(np.arange(start, start + size), stop - 1)
            try:
                batch = function(*(each[rows] for each in inputs))
            except self._exhausted:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                continue
            if batch[-1] is None:
                raise AttackError("no gradient flows from the model's logits back to its images")
            outputs.append([output.numpy()[: stop - start] for output in batch])
            start = stop
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


_networks: weakref.WeakKeyDictionary[Any, dict[tuple[int, ...], Network]] = weakref.WeakKeyDictionary()


def network_for(model: Callable[..., Any], image_shape: tuple[int, ...]) -> Network:
    """The model's `Network` for images of one shape, made at first use and dropped with the model."""
    by_shape = _networks.setdefault(model, {})
    if image_shape not in by_shape:
        by_shape[image_shape] = Network(model, image_shape)
    return by_shape[image_shape]


def check_finite(values: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """The values unchanged; AttackError saying how many rows hold NaN or infinity."""
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any():
        raise AttackError(f"{what} hold NaN or infinity for {bad.sum()} of {len(values)} images")
    return values


def _takes_training(model: Callable[..., Any]) -> bool:
    import keras

    return isinstance(model, keras.Layer) or "training" in inspect.signature(model).parameters
