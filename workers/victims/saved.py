"""A user's own trained model: a `.keras` file, turned into a victim without changing what it answers."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.victims.base import ArchitectureError, Shape
from workers.victims.weights import read_file

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
_CLEARLY = 0.1  # of the images: more than sampling explains
_UNDECIDED = 0.5  # of the cross-entropy of a guess


def input_shape(data: bytes) -> tuple[int | None, ...] | None:
    """(H, W, C) that a `.keras` file says its model takes, read without Keras; None where it does not say.

    Raises ArchitectureError for anything but a `.keras` file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ArchitectureError(f"it is not a {SUFFIX} file as keras.Model.save writes it: {error}") from None
    if "model.weights.h5" not in names:
        raise ArchitectureError("it holds no model.weights.h5: it is cut short, or of another layout")
    shape = _at(config, "build_config", "input_shape")
    if shape is None:
        layers = _at(config, "config", "layers") or []
        inputs = [
            _at(one, "config", "batch_shape") for one in layers if "InputLayer" in str(_at(one, "class_name"))
        ]
        shape = inputs[0] if len(inputs) == 1 else None
    if not isinstance(shape, list) or not all(side is None or isinstance(side, int) for side in shape):
        return None
    return tuple(shape[1:])


def _at(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def fits(found: Sequence[int | None], shape: Shape) -> bool:
    """Whether a model with this input shape takes images of that one; None stands for any size."""
    return len(found) == 3 and all(side in (None, given) for side, given in zip(found, shape, strict=True))


def load_saved(
    path: str, shape: Shape, classes: int, *, sha256: str | None, pixel_range: Sequence[float]
) -> keras.Model:
    """The model in a `.keras` file as a victim: images in [0, 1] to logits.

    Loaded in Keras' safe mode, which runs no code from the file. A final softmax or sigmoid is taken off,
    checked on random images to leave its answers what they were. `pixel_range`: (low, high) of the pixels
    that the model was trained on.

    Raises ArchitectureError when the file cannot be read or loaded, or holds no classifier of such images.
    """
    import keras

    data = read_file(path, sha256=sha256)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{SUFFIX}"
        file.write_bytes(data)
        try:
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises whatever the layer raises that it cannot restore
            raise ArchitectureError(
                f"cannot load {path}: {error}. Models of Keras' own layers are loaded, in safe mode; one "
                "with layers or functions of your own can be built by a factory: instead"
            ) from error
    _check_outside(model, path, shape, classes)
    logits = _logits(model, path, shape)
    low, high = pixel_range
    if (low, high) == (0, 1):
        return logits
    inputs = keras.Input(shape)
    return keras.Model(inputs, logits(keras.layers.Rescaling(high - low, offset=low)(inputs)))


def check_pixel_range(model: keras.Model, path: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Raise ArchitectureError when a model is clearly better at these (N, H, W, C) images, in [0, 1], once
    they are put on another scale: it was trained on that one.

    Clearly: right on many more of them; or as good as undecided here (a network of rectified units hardly
    minds the scale of its input, but the scale of its logits follows it) and far more certain there.
    """
    accuracy, loss = _accuracy_and_loss(model, images, labels)
    undecided = loss > _UNDECIDED * np.log(model.output_shape[1])
    others = []
    for low, high in ((0, 255), (-1, 1)):
        scaled = images * np.float32(high - low) + np.float32(low)
        right, lower = _accuracy_and_loss(model, scaled, labels)
        if right > accuracy + _CLEARLY or (undecided and lower < loss / 2):
            others.append((lower, right, f"[{low}, {high}]"))
    if others:
        lower, right, scale = min(others)
        raise ArchitectureError(
            f"{path} is right on {accuracy:.0%} of {len(images)} test images with pixels in [0, 1] "
            f"(cross-entropy {loss:.2f}), on {right:.0%} with pixels in {scale} ({lower:.2f}): "
            f"give it pixel_range: {scale} (or [0, 1], if that is what it was trained on)"
        )


def _accuracy_and_loss(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    logits = model.predict_on_batch(images).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float((logits.argmax(axis=1) == labels).mean()), float(losses.mean())


def _check_outside(model: Any, path: str, shape: Shape, classes: int) -> None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ArchitectureError(f"{path} was saved before it was built; call it on an image, then save it")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ArchitectureError(
            f"{path} has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            "one of each, images and logits, is allowed"
        )
    found = tuple(model.inputs[0].shape[1:])
    if not fits(found, shape):
        raise ArchitectureError(f"{path} takes images of shape {found}; the dataset's have {shape}")
    outputs = tuple(model.outputs[0].shape[1:])
    if outputs != (classes,):
        raise ArchitectureError(
            f"{path} answers with shape {outputs}; the dataset has {classes} classes, so ({classes},) is "
            "allowed, in the order of its labels"
        )


def _logits(model: keras.Model, path: str, shape: Shape) -> keras.Model:
    """The model without its final softmax or sigmoid."""
    import keras

    activation = _final_activation(model)
    if activation is None:
        return model
    images = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    before = keras.ops.convert_to_numpy(model(images, training=False))
    stripped = _without_activation(model)
    logits = stripped(images, training=False)
    after = keras.ops.convert_to_numpy(getattr(keras.activations, activation)(logits))
    if not np.allclose(before, after, atol=1e-5):
        raise ArchitectureError(
            f"{path} ends in {activation}, and taking it off changes its answers; save the model with "
            "logits as its outputs"
        )
    return stripped


def _final_activation(model: keras.Model) -> str | None:
    """ "softmax" or "sigmoid", if the model ends in one, however deeply nested; else None."""
    import keras

    operation = model.outputs[0]._keras_history.operation
    if isinstance(operation, keras.Model):
        return _final_activation(operation)
    kind = type(operation).__name__.lower()  # a layer, or an operation such as keras.ops.softmax
    if kind in ("softmax", "sigmoid"):
        return kind
    activation = getattr(operation, "activation", None)
    names = ("softmax", "sigmoid")
    return next((name for name in names if activation is getattr(keras.activations, name)), None)


def _without_activation(model: keras.Model) -> keras.Model:
    import keras

    operation, node, _ = model.outputs[0]._keras_history
    if hasattr(operation, "activation") and not isinstance(operation, keras.Model):
        operation.activation = keras.activations.linear
        return model
    before = operation._inbound_nodes[node].input_tensors[0]
    after = _without_activation(operation)(before) if isinstance(operation, keras.Model) else before
    return keras.Model(model.inputs[0], after)  # not a list of one, which Keras tells apart
