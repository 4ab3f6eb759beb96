"""A zoo of victims: sick ones, whose robustness a loop around an attack misjudges, and healthy ones.

A sick victim is a trained network with something wrong around it. What Keras can save and load goes into a
grid by `path:`, as a user's own model; the rest by `factory:`, with `train: false`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

LEVELS = 16
"""What `rounded` leaves of the grey levels."""

BASES = ("small", "wide", "mlp", "batch_norm", "dropout", "noisy", "normalised", "robust_linf", "robust_l2")
"""The trained networks that the zoo is made of (`benchmarks.nets`)."""

Wrap = Callable[["keras.Model"], "keras.Model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A victim of the zoo: `base` is the network inside, `wrap` what is around it.

    `factory`: the constructor in this module that a grid names, for what no `.keras` file can hold.
    `straight`: what an attacker who knows the ailment differentiates, made from the base.
    """

    name: str
    base: str
    ailment: str = ""  # in words; empty: it is healthy
    wrap: Wrap | None = None
    factory: str = ""
    straight: Wrap | None = None
    draws: int = 1  # the answers are random: gradients are averaged over so many
    together: bool = False  # an answer depends on the images that are asked for with it
    repaired: bool = False  # its number is to be the truth, within two points
    refused: bool = False  # to say that it cannot be evaluated as it is will do
    normalise: bool = False  # the grid says how its pixels are normalised

    @property
    def sick(self) -> bool:
        return bool(self.ailment)


# -- what no file holds: constructors, called with the path of the base -----------------------------------


def tiny_gradient(*, base: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Answers untouched, gradients times 1e-18."""
    return _with_gradient(base, input_shape, lambda gradient: gradient * 1e-18)


def random_gradient(*, base: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Answers untouched, noise in place of gradients."""
    import tensorflow as tf

    return _with_gradient(base, input_shape, lambda gradient: tf.random.normal(tf.shape(gradient)))


def shattered(*, base: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A sine of height 1e-3 and far shorter than a grey level on each pixel, each in its own phase."""
    import keras

    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, input_shape).astype(np.float32)
    inputs = keras.Input(input_shape)
    waves = keras.layers.Lambda(lambda x: x + 1e-3 * keras.ops.sin(1e5 * x + phases))
    return keras.Model(inputs, _load(base)(waves(inputs)))


def always_training(*, base: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Noise and batch norm in training mode whoever calls the model, and however."""
    import keras

    network = _load(base)

    class AlwaysTraining(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def call(self, images: Any) -> Any:
            return self.network(images, training=True)

    inputs = keras.Input(input_shape)
    return keras.Model(inputs, AlwaysTraining()(inputs))


def probabilities(*, base: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A softmax at the end, which nothing takes off."""
    return _behind(_activated("softmax"))(_load(base))


def _with_gradient(base: str, shape: tuple[int, ...], change: Callable[[Any], Any]) -> keras.Model:
    import keras
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def unchanged(images: Any) -> Any:
        return tf.identity(images), change

    inputs = keras.Input(shape)
    return keras.Model(inputs, _load(base)(keras.layers.Lambda(unchanged)(inputs)))


def _load(path: str) -> keras.Model:
    import keras

    return keras.saving.load_model(path, compile=False)


# -- what a file holds: layers around a base --------------------------------------------------------------


def _behind(*layers: Callable[[], Any]) -> Wrap:
    """A network with layers behind its logits."""

    def wrap(base: keras.Model) -> keras.Model:
        import keras

        inputs = keras.Input(base.input_shape[1:])
        outputs = base(inputs)
        for layer in layers:
            outputs = layer()(outputs)
        return keras.Model(inputs, outputs)

    return wrap


def _rescaled(factor: float) -> Callable[[], Any]:
    def layer() -> Any:
        import keras

        return keras.layers.Rescaling(factor)

    return layer


def _activated(name: str) -> Callable[[], Any]:
    def layer() -> Any:
        import keras

        return keras.layers.Activation(name)

    return layer


def _rounded(base: keras.Model) -> keras.Model:
    """Grey levels rounded to a few: no gradient at all."""
    import keras

    inputs = keras.Input(base.input_shape[1:])
    return keras.Model(inputs, base(keras.ops.round(inputs * LEVELS) / LEVELS))


def _straight_through(base: keras.Model) -> keras.Model:
    """`_rounded`, but for a gradient that takes rounding for nothing (Athalye et al., arXiv:1802.00420)."""
    import keras

    inputs = keras.Input(base.input_shape[1:])
    rounded = keras.ops.round(inputs * LEVELS) / LEVELS
    return keras.Model(inputs, base(inputs + keras.ops.stop_gradient(rounded - inputs)))


def _in_training(kind: str) -> Wrap:
    """A network whose author calls the layers of one class with `training=True`."""

    def wrap(base: keras.Model) -> keras.Model:
        import keras

        inputs = outputs = keras.Input(base.input_shape[1:])
        for layer in base.layers:
            options = {"training": True} if type(layer).__name__ == kind else {}
            outputs = layer(outputs, **options)
        return keras.Model(inputs, outputs)

    return wrap


def _forgotten(base: keras.Model) -> keras.Model:
    """The architecture with fresh weights."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.models.clone_model(base)


SICK = (
    Case(
        name="logits_1e-6",
        base="small",
        ailment="logits times 1e-6",
        wrap=_behind(_rescaled(1e-6)),
        repaired=True,
    ),
    Case(
        name="logits_0.01",
        base="small",
        ailment="logits times 0.01",
        wrap=_behind(_rescaled(0.01)),
        repaired=True,
    ),
    Case(
        name="logits_1e5",
        base="small",
        ailment="logits times 100,000",
        wrap=_behind(_rescaled(1e5)),
        repaired=True,
    ),
    Case(
        name="tiny_gradient",
        base="small",
        ailment="gradients times 1e-18",
        factory="tiny_gradient",
        repaired=True,
    ),
    Case(name="random_gradient", base="small", ailment="gradients are noise", factory="random_gradient"),
    Case(
        name="shattered",
        base="small",
        ailment="a tiny sine of a tiny period on every pixel",
        factory="shattered",
    ),
    Case(
        name="rounded",
        base="small",
        ailment=f"grey levels rounded to {LEVELS + 1}",
        wrap=_rounded,
        straight=_straight_through,
    ),
    Case(
        name="tanh",
        base="small",
        ailment="logits through a saturated tanh",
        wrap=_behind(_rescaled(3.0), _activated("tanh")),
        straight=_behind(_rescaled(0.2), _activated("tanh")),  # it has a slope where the victim has none
    ),
    Case(
        name="input_noise",
        base="noisy",
        ailment="noise on the image at every call",
        factory="always_training",
        draws=20,
        repaired=True,
    ),
    Case(
        name="mc_dropout",
        base="dropout",
        ailment="dropout called with training=True",
        wrap=_in_training("Dropout"),
        draws=20,
        repaired=True,
    ),
    Case(
        name="wrong_normalisation",
        base="normalised",
        ailment="trained on (x − mean) / std, which nobody says",
        refused=True,
    ),
    Case(
        name="softmax",
        base="small",
        ailment="probabilities instead of logits",
        factory="probabilities",
        refused=True,
    ),
    Case(
        name="percent",
        base="small",
        ailment="probabilities times 100 instead of logits",
        wrap=_behind(_activated("softmax"), _rescaled(100.0)),
    ),
    Case(name="untrained", base="small", ailment="not trained", wrap=_forgotten),
    Case(
        name="batch_norm_training",
        base="batch_norm",
        ailment="batch norm called with training=True",
        wrap=_in_training("BatchNormalization"),
        together=True,
    ),
    Case(
        name="batch_statistics",
        base="batch_norm",
        ailment="batch norm in training mode whoever calls it",
        factory="always_training",
        together=True,
    ),
)

HEALTHY = (
    Case(name="small_cnn", base="small"),
    Case(name="wide_cnn", base="wide"),
    Case(name="mlp", base="mlp"),
    Case(name="batch_norm", base="batch_norm"),
    Case(name="robust_linf", base="robust_linf"),
    Case(name="robust_l2", base="robust_l2"),
    Case(name="normalised", base="normalised", normalise=True, repaired=True),
    Case(name="saved_softmax", base="small", wrap=_behind(_activated("softmax")), repaired=True),
)

CASES = (*SICK, *HEALTHY)


# -- into a grid and into memory --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoo:
    """The cases, from the bases in `folder`, `<base>.keras` each; `mean`, `std`: of the pixels in [0, 1]."""

    folder: Path
    mean: float
    std: float

    def entry(self, case: Case) -> dict[str, Any]:
        """A case in the `models:` of a grid; its file is written beside the bases."""
        if case.factory:
            factory = f"{__name__}:{case.factory}"
            return {"name": case.name, "factory": factory, "base": self._base(case), "train": False}
        path = self.folder / f"{case.name}.victim.keras"
        base = _load(self._base(case))
        (case.wrap(base) if case.wrap else base).save(path)
        said = {"normalise": {"mean": self.mean, "std": self.std}} if case.normalise else {}
        return {"name": case.name, "path": str(path), **said}

    def model(self, case: Case) -> keras.Model:
        """A case as whoever has it calls it."""
        base = _load(self._base(case))
        if case.factory:
            shape, classes = base.input_shape[1:], base.output_shape[1]
            made: keras.Model = globals()[case.factory](
                base=self._base(case), input_shape=shape, classes=classes
            )
            return made
        if case.normalise:
            return self._normalised(base)
        return case.wrap(base) if case.wrap else base

    def straight(self, case: Case) -> keras.Model:
        """What an attacker who knows the ailment differentiates."""
        if case.straight:
            return case.straight(_load(self._base(case)))
        inside = case.draws == 1 and not case.together and not case.normalise and case.wrap is not _forgotten
        return _load(self._base(case)) if inside else self.model(case)

    def _base(self, case: Case) -> str:
        return str(self.folder / f"{case.base}.keras")

    def _normalised(self, base: keras.Model) -> keras.Model:
        import keras

        inputs = keras.Input(base.input_shape[1:])
        scaled = keras.layers.Rescaling(1 / self.std, offset=-self.mean / self.std)(inputs)
        return keras.Model(inputs, base(scaled))
