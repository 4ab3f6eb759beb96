"""A user's own trained model: a `.keras` file, turned into a victim without changing what it answers."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.archives import BROKEN, ensure_sound
from workers.recorded import as_json
from workers.victims.base import ArchitectureError, Shape
from workers.victims.pixels import PixelScale
from workers.victims.weights import read_file

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"

_AUGMENTING = frozenset(
    (
        "AugMix",
        "AutoContrast",
        "CenterCrop",
        "ContrastLimitedAdaptiveHistogramEqualization",
        "CutMix",
        "Equalization",
        "MaxNumBoundingBoxes",
        "MixUp",
        "Pipeline",
        "RandAugment",
        "Resizing",
        "Solarization",
    )
)


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a `.keras` file says of its model, read without Keras."""

    input_shape: tuple[int | None, ...] | None  # (H, W, C); None where it does not say
    training: tuple[str, ...]  # names of the layers to which its author passes training=True


def describe_saved(data: bytes) -> SavedModel:
    """Raises ArchitectureError for anything but a `.keras` file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            ensure_sound(archive)
            names = set(archive.namelist())
            config = as_json(archive.read("config.json"))
    except BROKEN as error:
        raise ArchitectureError(f"it is not a {SUFFIX} file as keras.Model.save writes it: {error}") from None
    if "model.weights.h5" not in names:
        raise ArchitectureError("it holds no model.weights.h5: it is cut short, or of another layout")
    return SavedModel(_input_shape(config), tuple(_in_training(config)))


def _input_shape(config: Any) -> tuple[int | None, ...] | None:
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


def _in_training(config: Any) -> Iterator[str]:
    """The layers, at any depth, that are called with training=True; as `workers.inference` finds them."""
    layers = _at(config, "config", "layers")
    for layer in layers if isinstance(layers, list) else []:
        nodes = _at(layer, "inbound_nodes")
        said = [_at(node, "kwargs", "training") for node in nodes] if isinstance(nodes, list) else []
        if True in said and not trains_by_default(str(_at(layer, "class_name"))):
            yield str(_at(layer, "config", "name") or _at(layer, "class_name"))
        elif not said or None in said:  # what is said of a call holds for all that is in the layer too
            yield from _in_training(layer)


def trains_by_default(name: str) -> bool:
    """Whether a layer of Keras' own takes training=True where nothing is said.

    Keras then writes it down as if the author had said it.
    """
    return name in _AUGMENTING or name.startswith("Random")


def _at(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def fits(found: Sequence[int | None], shape: Shape) -> bool:
    """Whether a model with this input shape takes images of that one; None stands for any size."""
    return len(found) == 3 and all(side in (None, given) for side, given in zip(found, shape, strict=True))


def load_saved(
    path: str, shape: Shape, classes: int, *, sha256: str | None, pixels: PixelScale
) -> keras.Model:
    """The model in a `.keras` file as a victim: images in [0, 1] to logits.

    Loaded in Keras' safe mode, which runs no code from the file. A final softmax or sigmoid is taken off,
    checked on random images to leave its answers what they were. `pixels`: the scale of pixels that the
    model was trained on.

    Raises ArchitectureError when the file cannot be read or loaded, holds no classifier of such images, or
    the scale is one of another number of channels.
    """
    import keras

    data = read_file(path, sha256=sha256)
    describe_saved(data)
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
    if pixels.is_unit:
        return logits
    if not pixels.fits(shape[2]):
        raise ArchitectureError(
            f"{path} has {pixels.option} for {len(pixels.factor)} channels; the images have {shape[2]}"
        )
    inputs = keras.Input(shape)
    scaled = keras.layers.Rescaling(list(pixels.factor), offset=list(pixels.offset))(inputs)
    return keras.Model(inputs, logits(scaled))


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

    operation, index, _ = model.outputs[0]._keras_history
    if hasattr(operation, "activation") and not isinstance(operation, keras.Model):
        operation.activation = keras.activations.linear
        return model
    node = operation._inbound_nodes[index]
    after = before = node.input_tensors[0]
    if isinstance(operation, keras.Model):
        after = _without_activation(operation)(before, **node.arguments.kwargs)
    return keras.Model(model.inputs[0], after)  # not a list of one, which Keras tells apart
