"""The one way to call a model: traced once, in batches of a few fixed sizes, halved where memory is short."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import metrics
from workers.flags import Flag
from workers.inference import answer
from workers.losses import LOSSES, value_and_slope

BATCH_SIZES = {"CPU": (8, 16, 32, 64, 128, 256), "GPU": (32, 128, 512)}
"""Images per call. Kernels are prepared per size (oneDNN, cuDNN), so a batch is padded up to one of these."""

CALL_BYTES = {"CPU": 2**30, "GPU": 2**33}
"""What one call's tensors may take together: large networks and images go in smaller batches."""

COMPILE = {"CPU": False, "GPU": True}
"""Whether XLA compiles the calls (docs/performance.md). Not run on a GPU yet."""


_PROBES = 8
_CALLS = 5  # by which answers are compared: what is random may not show in two
_GENERATOR_STATES = ("seed_generator_state", "StateVar")
"""The names of the variables that Keras' and TensorFlow's generators keep their state in."""


@dataclass
class Tracing:
    """How long this process has traced functions of models."""

    seconds: float = 0.0


TRACING = Tracing()


class NoGradientError(RuntimeError):
    """No gradient flows from a model's logits back to its images, so that nothing can be learnt from it."""


@dataclass(frozen=True, slots=True)
class Health:
    """The number of a model's classes, and what is wrong with it as something to attack."""

    classes: int
    faults: tuple[Flag, ...]

    @property
    def randomised(self) -> bool:
        """Whether answers to the same image differ by more than float32 blurs."""
        return Flag.RANDOMISED in self.faults


class Network:
    """What the rest sees of a model: logits and gradients as NumPy arrays, any number of images a call.

    Each of its functions is traced once, at first use; the model itself is not kept alive. Values are passed
    on as the model gives them, NaN included. Labels, targets and classes are int32.

    `gradients_of` is another model, whose losses and gradients are taken beside this one's logits.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        image_shape: tuple[int, ...],
        gradients_of: Callable[..., Any] | None = None,
    ) -> None:
        import tensorflow as tf

        # A strong reference here would keep the model alive for as long as the cache below holds its traces.
        reference = weakref.ref(model)
        source = reference if gradients_of is None else weakref.ref(gradients_of)

        def call(images: Any, of: weakref.ref[Any] = reference) -> Any:
            return tf.cast(answer(of(), images), tf.float32)  # type: ignore[arg-type]

        def forward(images: Any) -> Any:
            return (call(images),)

        def backward(loss: str, images: Any, labels: Any, targets: Any) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(images)
                logits = call(images, source)
            value, slope = value_and_slope(loss, logits, labels, targets)
            # Each image's own, never averaged: a gradient must not know its neighbours.
            gradient = tape.gradient(logits, images, output_gradients=slope)
            return logits if source is reference else call(images), value, gradient

        def differences(images: Any, labels: Any, classes: Any) -> Any:
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(images)
                logits = call(images, source)
            depth = tf.shape(logits)[1]

            def of_one_rank(one: Any) -> Any:
                slope = tf.one_hot(one, depth) - tf.one_hot(labels, depth)
                gradient = tape.gradient(logits, images, output_gradients=slope)
                return tf.zeros_like(images) if gradient is None else gradient

            gradients = tf.map_fn(
                of_one_rank, tf.transpose(classes), parallel_iterations=1, fn_output_signature=tf.float32
            )
            answered = logits if source is reference else call(images)
            return answered, tf.transpose(gradients, (1, 0, 2, 3, 4))

        device = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        image = tf.TensorSpec((None, *image_shape), tf.float32)
        label = tf.TensorSpec((None,), tf.int32)
        classes = tf.TensorSpec((None, None), tf.int32)
        # Nothing here needs AutoGraph, whose generated files a worker that is killed leaves behind.
        compiled = COMPILE[device] and _compiles(model)
        traced = partial(tf.function, jit_compile=compiled, autograph=False)
        self._forward = traced(forward, input_signature=[image])
        self._backward = {
            loss: traced(partial(backward, loss), input_signature=[image, label, label]) for loss in LOSSES
        }
        self._differences = traced(differences, input_signature=[image, label, classes])
        self._exhausted = tf.errors.ResourceExhaustedError
        self._image_shape = image_shape
        self._sizes = BATCH_SIZES[device]
        self._budget = CALL_BYTES[device]
        self._health: Health | None = None
        self._logit_size: float | None = None
        self.batch_size = self._sizes[-1]  # less for a network that needs much memory; halved if it runs out

    @property
    def traces(self) -> int:
        """How often the model has been traced: at most once for each kind of call, and for each loss."""
        functions = (self._forward, *self._backward.values(), self._differences)
        return sum(each.experimental_get_tracing_count() for each in functions)

    def logits(self, images: NDArray[np.float32], *, batch_size: int | None = None) -> NDArray[np.float32]:
        """(N, K) float32 logits of (N, H, W, C) images, N ≥ 1, as they are: NaN and infinity too.

        With `batch_size` every call is of so many images, however few there are, as long as memory allows:
        then no bit of an image's answer depends on how many others are asked for with it.
        """
        (logits,) = self._in_batches(self._forward, images, size=batch_size)
        return logits

    @property
    def logit_size(self) -> float:
        """The usual size of the model's logits: the median of the largest on 8 images of noise."""
        if self._logit_size is None:
            logits = self.logits(self._noise())
            size = np.abs(logits[np.isfinite(logits).all(axis=1)]).max(axis=1)
            self._logit_size = float(np.median(size)) if len(size) else 0.0
        return self._logit_size

    def health(self, images: NDArray[np.float32]) -> Health:
        """What is wrong with the model, seen on up to 8 of the (N, H, W, C) images, N ≥ 1, and 8 of noise.

        Looked at once; five forward passes.
        """
        if self._health is None:
            probes = np.concatenate([images[:_PROBES], self._noise()])
            answers = np.stack([self.logits(probes) for _ in range(_CALLS)])
            self._health = Health(answers.shape[2], _faults(answers))
        return self._health

    def _noise(self) -> NDArray[np.float32]:
        return np.random.default_rng(0).random((_PROBES, *self._image_shape), np.float32)

    def reseed(self, *key: int) -> None:
        """Put the model's random generators into the state that belongs to a key of integers from 0.

        What it draws next then follows from the key and from how it is called. Generators of Keras and
        `tf.random.Generator` are reached, wherever the model keeps them; TensorFlow's operations that keep
        their own state, as `tf.random.normal`, are not, and draw anew in every run.
        """
        words = np.random.SeedSequence(key).generate_state(2).astype(np.int64)
        for variable in self._generators():
            state = np.zeros(variable.shape, np.int64)
            state[: len(words)] = words
            variable.assign(state.astype(variable.dtype.as_numpy_dtype))

    def _generators(self) -> list[Any]:
        """The variables that traced functions keep the state of random generators in."""
        functions = [self._forward, *self._backward.values(), self._differences]
        traced = [one for one in functions if one.experimental_get_tracing_count()] or [self._forward]
        found = {
            id(variable): variable
            for function in traced
            for variable in function.get_concrete_function().graph.variables
            if any(name in variable.name for name in _GENERATOR_STATES)
        }
        return list(found.values())

    def gradients(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.int32],
        targets: NDArray[np.int32] | None = None,
        loss: str = "cross_entropy",
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Logits (N, K), losses (N,), and gradients (N, H, W, C) of each image's own loss; N ≥ 1.

        `loss` is one of `LOSSES`; gradients are true up to a positive factor an image. NoGradientError where
        no gradient flows at all.
        """
        if targets is None:
            targets = labels
        logits, losses, gradients = self._in_batches(self._backward[loss], images, labels, targets)
        return logits, losses, gradients

    def differences(
        self, images: NDArray[np.float32], labels: NDArray[np.int32], classes: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (N, K), and the gradients (N, J, H, W, C) of z_class − z_label for `classes` (N, J); N ≥ 1.

        One forward pass and J backward passes.
        """
        logits, gradients = self._in_batches(self._differences, images, labels, classes)
        return logits, gradients

    def _in_batches(
        self, function: Any, *inputs: NDArray[Any], size: int | None = None
    ) -> list[NDArray[Any]]:
        """Outputs of a traced function for all images; `size`: of every batch, the last one padded to it."""
        import tensorflow as tf

        known, begun = function.experimental_get_tracing_count(), time.perf_counter()
        # Called without tf.function's own look at its arguments: that is a tenth of a small network's call.
        call = function.get_concrete_function()
        if not known:
            self._limit(call.graph)
            TRACING.seconds += time.perf_counter() - begun
        total, start, outputs = len(inputs[0]), 0, []
        while start < total:
            most = min(size or self.batch_size, self.batch_size)
            stop = min(start + most, total)
            padded = most if size else min(most, next(each for each in self._sizes if each >= stop - start))
            # The last row again as padding: real data, so that it meets no numerical trouble of its own.
            rows = (
                slice(start, stop)
                if padded == stop - start
                else np.minimum(np.arange(start, start + padded), stop - 1)
            )
            try:
                batch = call(*(tf.constant(each[rows]) for each in inputs))
            except self._exhausted:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                continue
            if batch[-1] is None:
                raise NoGradientError("no gradient flows from the model's logits back to its images")
            outputs.append([output.numpy()[: stop - start] for output in batch])
            start = stop
        if len(outputs) == 1:
            return outputs[0]
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]

    def _limit(self, graph: Any) -> None:
        """Lower the batch size until all tensors of a traced call, were none freed, fit the budget."""
        shapes = [
            (each.shape.as_list(), each.dtype.size)
            for op in graph.get_operations()
            for each in op.outputs
            if each.shape.rank
        ]
        an_image = sum(
            np.prod(shape[1:]) * size for shape, size in shapes if shape[0] is None and None not in shape[1:]
        )
        fitting = [size for size in self._sizes if size * an_image <= self._budget]
        self.batch_size = min(self.batch_size, max(fitting, default=self._sizes[0]))


_networks: weakref.WeakKeyDictionary[Any, dict[Any, Network]] = weakref.WeakKeyDictionary()


def network_for(
    model: Callable[..., Any], image_shape: tuple[int, ...], gradients_of: Callable[..., Any] | None = None
) -> Network:
    """The model's `Network` for images of one shape, made at first use and dropped with the model.

    With `gradients_of`, one that takes its gradients from that other model.
    """
    known = _networks.setdefault(model, {})
    kind = image_shape, None if gradients_of is None else weakref.ref(gradients_of)
    if kind not in known:
        known[kind] = Network(model, image_shape, gradients_of)
    return known[kind]


def _compiles(model: Any) -> bool:
    """Whether XLA may compile a model: unless a layer in it says that it does not support that."""
    import keras

    layers = model._flatten_layers() if isinstance(model, keras.Layer) else ()
    return all(layer.supports_jit for layer in layers)


def _faults(answers: NDArray[np.float32]) -> tuple[Flag, ...]:
    """What several answers (A, N, K) to the same images say about the model."""
    if not np.isfinite(answers).all():
        return ()
    logits = answers[0]
    sums_to_one = (logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) < 1e-3).all()
    seen = {
        Flag.RANDOMISED: (np.abs(answers - logits).max(axis=(0, 2)) > metrics.blur(logits)).any(),
        Flag.CONSTANT_MODEL: (logits == logits[0]).all(),
        Flag.PROBABILITIES: sums_to_one,
    }
    return tuple(flag for flag, found in seen.items() if found)
