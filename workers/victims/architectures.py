"""The networks a grid can name. Light to import: Keras is loaded when one is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as options_dataclass

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]  # (H, W, C)

_FORBID = ConfigDict(extra="forbid")
_IDENTITY = ("name", "factory", "version", "source")  # what a model's mapping holds besides its options


class ArchitectureError(Exception):
    """A model that cannot be built, or is no victim: the message says what was found and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network by name; `version` is raised whenever what it builds changes.

    `build(options, shape, classes)` takes an instance of `options`, the images' (H, W, C) and the number of
    classes, and returns a model from float32 images (N, H, W, C) in [0, 1] to logits (N, classes).
    """

    name: str
    version: int
    options: type
    min_size: int  # pixels: the least height and width of an image
    build: Callable[[Any, Shape, int], keras.Model]


@options_dataclass(frozen=True, kw_only=True, config=_FORBID)
class SmallCNNOptions:
    width: int = Field(default=16, strict=True, ge=1, le=1024)  # filters of the first convolution


@options_dataclass(frozen=True, kw_only=True, config=_FORBID)
class WideCNNOptions:
    width: int = Field(default=32, strict=True, ge=1, le=1024)  # filters of the first convolution


def _small_cnn(options: SmallCNNOptions, shape: Shape, classes: int) -> keras.Model:
    """Two convolutions, each followed by pooling, and a hidden dense layer."""
    from keras import Sequential, layers

    width = options.width
    return Sequential(
        [
            layers.Input(shape),
            layers.Rescaling(2.0, offset=-1.0),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu"),
            layers.Dense(classes),
        ],
        name="small_cnn",
    )


def _wide_cnn(options: WideCNNOptions, shape: Shape, classes: int) -> keras.Model:
    """Three convolutions, pooled over the whole image before the logits, without a hidden dense layer."""
    from keras import Sequential, layers

    width = options.width
    return Sequential(
        [
            layers.Input(shape),
            layers.Rescaling(2.0, offset=-1.0),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes),
        ],
        name="wide_cnn",
    )


def _registry(*architectures: Architecture) -> dict[str, Architecture]:
    return {architecture.name: architecture for architecture in architectures}


ARCHITECTURES: dict[str, Architecture] = _registry(
    Architecture(name="small_cnn", version=1, options=SmallCNNOptions, min_size=8, build=_small_cnn),
    Architecture(name="wide_cnn", version=1, options=WideCNNOptions, min_size=8, build=_wide_cnn),
)


def build_model(model: Mapping[str, Any], shape: Shape, classes: int) -> keras.Model:
    """Build the network that a `VictimSpec.model` mapping describes, with fresh weights.

    A `factory` ("package.module:object") is imported and called with the mapping's options and
    `input_shape=`, `classes=` instead of a registered architecture. Raises ArchitectureError for an unknown
    name, wrong options, too small images, or a model that does not map images to logits.
    """
    options = {key: value for key, value in model.items() if key not in _IDENTITY}
    if factory := model.get("factory"):
        built = _import(factory)(**options, input_shape=shape, classes=classes)
        check_logits(built, shape, classes, name=factory)
        return built
    if model["name"] not in ARCHITECTURES:
        raise ArchitectureError(
            f'unknown model "{model["name"]}"; allowed: {", ".join(sorted(ARCHITECTURES))}'
        )
    architecture = ARCHITECTURES[model["name"]]
    if min(shape[:2]) < architecture.min_size:
        raise ArchitectureError(
            f"{architecture.name} needs images of at least {architecture.min_size} pixels; "
            f"found {shape[0]}×{shape[1]}"
        )
    try:
        checked = architecture.options(**options)
    except ValidationError as error:
        raise ArchitectureError(f"options of {architecture.name}: {error}") from None
    return architecture.build(checked, shape, classes)


def check_logits(model: Any, shape: Shape, classes: int, *, name: str) -> None:
    """Try a model on four images of noise; ArchitectureError unless it answers with finite logits."""
    import keras

    if not isinstance(model, keras.Model):
        raise ArchitectureError(f"{name} returned a {type(model).__name__}; a keras.Model is allowed")
    images = np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    try:
        outputs = keras.ops.convert_to_numpy(model(images, training=False))
    except Exception as error:
        raise ArchitectureError(f"{name} cannot take images of shape {shape}: {error}") from error
    if outputs.shape != (4, classes):
        raise ArchitectureError(
            f"{name} maps (4, {', '.join(map(str, shape))}) to {outputs.shape}; (4, {classes}) is allowed"
        )
    if not np.isfinite(outputs).all():
        raise ArchitectureError(f"{name} answers with NaN or infinite values")
    if classes > 1 and (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise ArchitectureError(
            f"{name} answers with probabilities; logits are needed: drop the softmax at its end"
        )


def _import(factory: str) -> Callable[..., Any]:
    module, _, attribute = factory.partition(":")
    try:
        constructor: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArchitectureError(f'cannot import "{factory}": {error}') from error
    return constructor
