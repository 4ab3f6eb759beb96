"""The networks a grid can name, and building them. Light to import: Keras is loaded when one is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from workers.factories import load
from workers.inference import answer, choose
from workers.unit import ModelSpec
from workers.victims.applications import APPLICATIONS
from workers.victims.base import Architecture, ArchitectureError, Shape
from workers.victims.cnns import CNNS
from workers.victims.pixels import UNIT, stated
from workers.victims.saved import load_saved

if TYPE_CHECKING:
    import keras

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture for architecture in (*CNNS, *APPLICATIONS)
}


def build_model(model: ModelSpec, shape: Shape, classes: int, *, pretrained: bool = True) -> keras.Model:
    """Build a network from float32 images (N, H, W, C) in [0, 1] to logits (N, classes).

    Its weights are fresh, or those that the spec's `weights` name; with `pretrained` false these are left
    out, for a caller that has the victim's own. A `path` to a `.keras` file is loaded, weights and all. A
    `factory` ("package.module:object") is imported and called with the spec's options and
    `input_shape=`, `classes=`. Raises ArchitectureError for an unknown name, wrong options, images that the
    network cannot take, weights that cannot be had, or a model that does not map images to logits.
    """
    import keras

    if model.path:
        pixels = stated(model.options) or UNIT
        saved = load_saved(model.path, shape, classes, sha256=model.sha256, pixels=pixels)
        if model.inference:
            choose(saved, model.inference)
        check_logits(saved, shape, classes, name=model.path)
        return saved
    if model.factory:
        built = _own(model.factory, model)(**model.options, input_shape=shape, classes=classes)
        if model.inference and isinstance(built, keras.Model):
            choose(built, model.inference)
        check_logits(built, shape, classes, name=model.factory)
        return built
    if model.name not in ARCHITECTURES:
        raise ArchitectureError(f'unknown model "{model.name}"; allowed: {", ".join(sorted(ARCHITECTURES))}')
    architecture = ARCHITECTURES[model.name]
    _check_images(architecture, shape)
    weights = {"weights": model.weights.location} if model.weights else {}
    try:
        options = architecture.options(**{**model.options, **weights})
    except ValidationError as error:
        raise ArchitectureError(f"options of {architecture.name}: {error}") from None
    network = architecture.build(options, shape, classes)
    if pretrained and architecture.load_pretrained and model.weights:
        architecture.load_pretrained(network, options, model.weights.sha256 or None)
    return network


def _check_images(architecture: Architecture, shape: Shape) -> None:
    if min(shape[:2]) < architecture.min_size:
        raise ArchitectureError(
            f"{architecture.name} needs images of at least {architecture.min_size} pixels; "
            f"found {shape[0]}×{shape[1]}"
        )
    if architecture.channels and shape[2] not in architecture.channels:
        allowed = " or ".join(map(str, architecture.channels))
        raise ArchitectureError(f"{architecture.name} takes images of {allowed} channels; found {shape[2]}")


def check_logits(model: Any, shape: Shape, classes: int, *, name: str) -> None:
    """Try a model on four images of noise; ArchitectureError unless it answers with finite logits."""
    import keras

    if not isinstance(model, keras.Model):
        raise ArchitectureError(f"{name} returned a {type(model).__name__}; a keras.Model is allowed")
    images = np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    try:
        outputs = keras.ops.convert_to_numpy(answer(model, keras.ops.convert_to_tensor(images)))
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


def _own(factory: str, model: ModelSpec) -> Callable[..., Any]:
    """A user's constructor: the one that the spec identifies, where it does."""
    try:
        constructor: Callable[..., Any] = load(factory, version=model.version, source=model.source)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArchitectureError(f'cannot import "{factory}": {error}') from error
    return constructor
