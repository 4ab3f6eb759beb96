"""How a model is called: as its author calls it, or with every layer in inference mode.

In Keras 3.15 whoever passes `training=False` to a functional model passes it to all its layers, also to those
to which its author has passed `training=True` (MC-dropout; batch norm that normalises by the batch), and so
switches them off. Passing nothing honours them. But some preprocessing layers of Keras' own have
`training=True` as their default, which then reaches every layer after them: nobody asked for that, and it is
not honoured by default.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.flags import Flag
from workers.unit import Inference

if TYPE_CHECKING:
    import keras

_ROUNDING = 1e-5  # of the logits' spread: two ways that differ by less are the same
_LUCK = 3.0  # how many times as far apart two draws of one way may be by chance


class Difference(NamedTuple):
    """How far the answers to the same images as called are from those in inference mode."""

    share_changed: float  # of the images: another class
    relative: (
        float  # the largest difference of a logit, as a share of the median spread of an answer's logits
    )


_chosen: weakref.WeakKeyDictionary[Any, Inference] = weakref.WeakKeyDictionary()
_flags: weakref.WeakKeyDictionary[Any, tuple[Flag, ...]] = weakref.WeakKeyDictionary()


def choose(model: keras.Model, inference: Inference) -> None:
    """Say how a model is called; it is remembered for as long as the model lives."""
    _chosen[model] = inference


def carry(model: keras.Model, wrapped: keras.Model) -> keras.Model:
    """Have a model's wrapper called as the model itself is, and return the wrapper."""
    if wrapped is not model:
        _chosen[wrapped] = inference_of(model)
    return wrapped


def inference_of(model: Any) -> Inference:
    """How a model is called: as was chosen, else as it looks; anything but a Keras layer as it is called.

    By looks: as called where a layer of a functional model, however deeply nested, is passed `training=True`,
    and where not everything can be looked into (subclasses, layers of the user's own) unless preprocessing
    layers of Keras' own might put others into training mode by their default.
    """
    import keras

    if not isinstance(model, keras.Layer):
        return "as_called"
    if model in _chosen:
        return _chosen[model]
    seen = _look(model)
    return "as_called" if seen.asked or (seen.hidden and not seen.default) else "off"


def answer(model: Callable[..., Any], images: Any) -> Any:
    """What a model makes of a tensor of images (N, H, W, C), called as `inference_of` says.

    Nothing stays changed by it: the moving statistics of a batch norm in training mode are put back. The
    state of random numbers goes on, so that each call is a fresh draw.
    """
    import keras
    import tensorflow as tf

    if not isinstance(model, keras.Layer):
        return model(images, **_required(model))
    if inference_of(model) == "off":
        return model(images, training=False)
    if not model.built:
        with tf.init_scope():  # once, and not as a part of what is traced
            model(tf.zeros((1, *images.shape[1:])), training=False)
    # Not `model.non_trainable_weights`, which has all weights of a frozen layer.
    weights = [one for layer in model._flatten_layers() for one in layer._non_trainable_variables]
    before = [tf.identity(weight.value) for weight in weights]
    logits = model(images)
    for weight, value in zip(weights, before, strict=True):
        weight.assign(value)
    return logits


def difference(model: Any, images: NDArray[np.float32]) -> Difference:
    """How much it matters which way a Keras model is called, on (N, H, W, C) images in [0, 1], N ≥ 1.

    0 of everything but Keras models. Two forward passes.
    """
    import keras

    if not isinstance(model, keras.Layer):
        return Difference(0.0, 0.0)
    return _compare(_call(model, images, "as_called"), _call(model, images, "off"))


def inference_flags(model: Any, images: NDArray[np.float32]) -> tuple[Flag, ...]:
    """`AS_CALLED` or `SWITCHED_OFF` where the two ways to call a model differ on the first 64 images, N ≥ 1.

    Looked at once for each model, and only where they can differ.
    """
    import keras

    if not isinstance(model, keras.Layer):
        return ()
    if model not in _flags:
        _flags[model] = ()
        if any(_look(model)):
            images = images[:64]
            off, again = (_call(model, images, "off") for _ in range(2))
            found = _compare(_call(model, images, "as_called"), off).relative
            # Noise that is always on differs too, and has nothing to do with how the model is called.
            if found > _ROUNDING + _LUCK * _compare(again, off).relative:
                called = inference_of(model) == "as_called"
                _flags[model] = (Flag.AS_CALLED if called else Flag.SWITCHED_OFF,)
    return _flags[model]


class _Seen(NamedTuple):
    """What of a model may be in training mode when it is called."""

    asked: bool = False  # its author passes training=True to a layer
    default: bool = False  # a layer of Keras' own has training=True by default, and hands it on
    hidden: bool = False  # not all of it can be looked into


def _look(layer: keras.Layer) -> _Seen:
    """What of a layer, or of a model in it, may be in training mode by its being called."""
    import keras
    from keras.src.models.functional import Functional

    kind = type(layer)
    if isinstance(layer, keras.Sequential) and kind.call is keras.Sequential.call:
        return _all(map(_look, layer.layers))
    if isinstance(layer, Functional) and kind.call is Functional.call:
        nodes = (node for level in layer._nodes_by_depth.values() for node in level if not node.is_input)
        return _all(map(_look_at_node, nodes))
    own = kind.__module__.startswith("keras.") and not isinstance(layer, keras.Model | keras.layers.Lambda)
    within = map(_look, layer._flatten_layers(include_self=False, recursive=False))
    return _all([_Seen(default=_by_default(layer), hidden=not own), *within])


def _by_default(layer: keras.Layer) -> bool:
    """Whether it is a layer of Keras' own that is in training mode where nothing is said."""
    training = inspect.signature(layer.call).parameters.get("training")
    own = type(layer).__module__.startswith("keras.")
    return own and training is not None and training.default is True


def _look_at_node(node: Any) -> _Seen:
    """What of a call in a functional model may be in training mode."""
    import keras

    layer, training = node.operation, node.arguments.kwargs.get("training")
    if not isinstance(layer, keras.Layer):
        return _Seen()
    # Keras writes a layer's default into its calls as if its author had said it.
    if not isinstance(training, bool | int | np.bool_) or (training and _by_default(layer)):
        return _look(layer)
    return _Seen(asked=bool(training))  # and so for all that is in the layer


def _all(parts: Iterable[_Seen]) -> _Seen:
    return _Seen(*map(any, zip(_Seen(), *parts, strict=True)))


def _call(model: keras.Layer, images: NDArray[np.float32], inference: Inference) -> NDArray[np.float64]:
    """(N, K) logits, called in one of the two ways."""
    import keras

    chosen = _chosen.get(model)
    choose(model, inference)
    try:
        logits = keras.ops.convert_to_numpy(answer(model, keras.ops.convert_to_tensor(images)))
    finally:
        if chosen is None:
            del _chosen[model]
        else:
            choose(model, chosen)
    return np.asarray(logits, np.float64)


def _compare(one: NDArray[np.float64], other: NDArray[np.float64]) -> Difference:
    """Of two answers (N, K) to the same images; infinite where only one of them is finite."""
    changed = float((one.argmax(axis=1) != other.argmax(axis=1)).mean())
    if np.array_equal(one, other, equal_nan=True):
        return Difference(changed, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.abs(one - other).max() / np.median(other.max(axis=1) - other.min(axis=1))
    return Difference(changed, float(relative) if np.isfinite(relative) else float("inf"))


def _required(model: Callable[..., Any]) -> dict[str, bool]:
    """`training=False` for a function that cannot do without."""
    training = inspect.signature(model).parameters.get("training")
    return {"training": False} if training and training.default is inspect.Parameter.empty else {}
