"""Defences by name. Importing this imports no TensorFlow; defending a network does.

`DEFENCES` holds what a grid's `defences:` may name: those at inference are layers before a network
(`defend`), those in training change how it is trained (`in_training`, and `workers.victims.fitting`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workers.defences.adversarial_training import AdversarialTraining
from workers.defences.base import Defence, DefenceError, InputTransformation, Shape, TrainingDefence
from workers.defences.bit_depth import BitDepth
from workers.defences.gaussian_augmentation import GaussianAugmentation
from workers.defences.gaussian_noise import GaussianNoise
from workers.defences.jpeg import Jpeg
from workers.defences.label_smoothing import LabelSmoothing
from workers.defences.median_smoothing import MedianSmoothing
from workers.defences.random_resize_pad import RandomResizePad
from workers.defences.smoothing import Smoothing
from workers.defences.trades import Trades
from workers.factories import load
from workers.inference import carry
from workers.unit import DefenceSpec

if TYPE_CHECKING:
    import keras

__all__ = [
    "DEFENCES",
    "Defence",
    "DefenceError",
    "InputTransformation",
    "TrainingDefence",
    "defend",
    "gradients",
    "in_training",
    "registered",
]

DEFENCES: dict[str, type[Defence]] = {
    defence.name: defence
    for defence in (
        Defence,
        AdversarialTraining,
        Trades,
        GaussianAugmentation,
        LabelSmoothing,
        Jpeg,
        BitDepth,
        MedianSmoothing,
        GaussianNoise,
        RandomResizePad,
        Smoothing,
    )
}


def registered(spec: DefenceSpec) -> Defence:
    """The defence of a spec that is neither a combination nor a user's own.

    DefenceError for one that is not registered.
    """
    if spec.name not in DEFENCES:
        raise DefenceError(f'unknown defence "{spec.name}"; allowed: {", ".join(sorted(DEFENCES))}')
    return DEFENCES[spec.name](**spec.options)


def in_training(spec: DefenceSpec) -> TrainingDefence | None:
    """What of a defence changes how its network is trained. DefenceError as of `registered`."""
    defence = registered(spec.network)
    return defence if isinstance(defence, TrainingDefence) else None


def gradients(spec: DefenceSpec) -> int:
    """How many gradients a step of training takes with a defence: 1 without one in training."""
    defence = in_training(spec)
    return defence.gradients if defence else 1


def defend(model: keras.Model, spec: DefenceSpec, shape: Shape) -> keras.Model:
    """A network, of images of a shape (H, W, C), as its victim answers with it, called as the network is.

    Of a combination, images go through its parts at inference in their order. A part in training is in the
    network's weights already.

    A `factory` ("package.module:object") is called with the spec's options: it returns a layer, or any
    function, of float32 images (N, H, W, C) in [0, 1] to images of the same shape; or a pair of one and
    another whose gradient is taken in its place. What it draws at random should come from a
    `keras.random.SeedGenerator`, so that draws can be keyed.

    Raises DefenceError for a defence that is not registered, cannot take such images, makes no images of
    them, or leaves them as they are; ImportError or AttributeError for a factory that cannot be found, or is
    not the one that was planned.
    """
    if spec.parts:
        for part in reversed(spec.parts):
            model = defend(model, part, shape)
        return model
    if spec.factory:
        own = load(spec.factory, version=spec.version, source=spec.source)
        return carry(model, _behind(model, own(**spec.options), spec.factory, shape))
    defence = registered(spec)
    if why := defence.misfit(shape):
        raise DefenceError(f"{spec.name} {why}; found {'×'.join(map(str, shape))}")
    return carry(model, defence.wrap(model))


def _behind(model: keras.Model, made: Any, factory: str, shape: Shape) -> keras.Model:
    """A network behind what a user's factory has made; DefenceError unless that maps images to others."""
    from workers.defences.layers import Defended, Transformation

    transform, surrogate = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    for part in (transform,) if surrogate is None else (transform, surrogate):
        if not callable(part):
            raise DefenceError(
                f"{factory} returned {type(part).__name__}; a layer or function of images, or a pair of one "
                "and its surrogate, is allowed"
            )
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    transformed = _answer(transform, images, factory)
    if surrogate is not None:
        _answer(surrogate, images, f"the surrogate of {factory}")
    if np.array_equal(transformed, images):
        raise DefenceError(
            f"{factory} leaves images as they are, so it is no defence: a layer that acts in training only, "
            "as keras.layers.GaussianNoise, does nothing when a victim answers"
        )
    # Nobody knows whether XLA could compile it.
    return Defended(Transformation(transform, surrogate, compiles=False), model)


def _answer(transform: Callable[[Any], Any], images: NDArray[np.float32], of: str) -> NDArray[Any]:
    """What it makes of images (N, H, W, C), called as by a victim; DefenceError unless that is images."""
    import keras

    from workers.defences.layers import Defended, Transformation

    alone = Defended(Transformation(transform), lambda images, training: images)
    found = np.asarray(keras.ops.convert_to_numpy(alone(images, training=False)))
    if found.shape != images.shape or found.dtype != np.float32 or not np.isfinite(found).all():
        finite = (
            "" if not np.issubdtype(found.dtype, np.floating) or np.isfinite(found).all() else ", not finite,"
        )
        raise DefenceError(
            f"{of} made {found.dtype} {found.shape}{finite} of images {images.dtype} {images.shape}; finite "
            "float32 of the same shape is allowed"
        )
    return found
