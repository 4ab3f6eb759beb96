"""What every defence is: validated options, and what becomes of a network that has it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as options

if TYPE_CHECKING:
    import keras

Shape = tuple[int, int, int]  # (H, W, C)

OPTIONS_CONFIG = ConfigDict(extra="forbid", strict=True)


class DefenceError(Exception):
    """A defence that is none, or cannot take a dataset's images: the message says what was found."""


@options(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class Defence:
    """Options of a defence; on its own, none.

    `VERSION` is raised whenever results change: it is part of the identity of every victim that has it.
    """

    name: ClassVar[str] = "none"
    VERSION: ClassVar[int] = 1
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset()  # options on the pixel scale, as epsilon is
    CERTIFICATE_OPTIONS: ClassVar[frozenset[str]] = frozenset()  # what certificates of its answers take
    at_inference: ClassVar[bool] = (
        False  # it acts when a network answers, whose weights it leaves as they are
    )
    in_training: ClassVar[bool] = False  # it acts while a network is trained, and is gone afterwards

    def misfit(self, shape: Shape) -> str:
        """Why it cannot take images of that shape, behind its name; "" where it can."""
        return ""

    def wrap(self, model: keras.Model) -> keras.Model:
        """A network as its victim answers with it."""
        return model


@options(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class InputTransformation(Defence):
    """A defence that changes images before a network sees them: a layer inside the victim.

    Gradients are taken through `transform`; or through `surrogate` in its place, where it has none that lead
    anywhere (backward pass differentiable approximation: Athalye, Carlini and Wagner, arXiv:1802.00420).
    """

    at_inference: ClassVar[bool] = True
    compiles: ClassVar[bool] = True  # False: XLA cannot compile it

    @abstractmethod
    def transform(self, images: Any, seed: Any) -> Any:
        """Images (N, H, W, C), a float32 tensor in [0, 1], as the network is given them, in the same shape.

        All randomness comes from `seed`, a `keras.random.SeedGenerator`, so that draws can be keyed.
        """

    def surrogate(self, images: Any) -> Any:
        """What is differentiated in its place, (N, H, W, C); None: `transform` itself."""
        return None

    def wrap(self, model: keras.Model) -> keras.Model:
        import keras

        from workers.defences.layers import Defended, Transformation

        seed = keras.random.SeedGenerator(0)
        replaced = type(self).surrogate is not InputTransformation.surrogate
        layer = Transformation(
            lambda images: self.transform(images, seed),
            self.surrogate if replaced else None,
            seed=seed,
            compiles=self.compiles,
        )
        return Defended(layer, model)


Answers = Callable[[Any, bool], Any]
"""A network's logits (N, K) float32 of images (N, H, W, C), in training mode or not."""


class Moment(NamedTuple):
    """Where a training is when it takes a step, all of it but the whole number as tensors."""

    seed: Any  # (2,) int32: what is drawn in this step follows from it
    epoch: Any  # float32: epochs that are through, the share of the present one included
    epochs: int  # of the phase


@options(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class TrainingDefence(Defence):
    """A defence that changes what a network is trained on, or what for: its weights are others.

    Both methods are traced into the training's step. The network's answers are in training mode in `losses`
    and in inference mode in `altered`, which gradients of the weights do not go through.
    """

    in_training: ClassVar[bool] = True
    alters_images: ClassVar[bool] = False  # it does not train on the images as they are
    attacks: ClassVar[bool] = False  # it trains on adversarial ones

    @property
    def gradients(self) -> int:
        """How many gradients of the network a step of training takes, the one by its weights included."""
        return 1

    def misfit_of(self, epochs: int) -> str:
        """Why it cannot act in so many epochs of training on images, behind its name; "" where it can."""
        return ""

    def altered(self, answers: Answers, images: Any, labels: Any, moment: Moment) -> Any:
        """What a step trains on in place of images (N, H, W, C) in [0, 1] with int64 labels (N,)."""
        return images

    def losses(self, answers: Answers, images: Any, altered: Any, labels: Any) -> tuple[Any, Any]:
        """What a step lowers, (N,), and the logits (N, K) that its accuracy is of."""
        import tensorflow as tf

        logits = answers(altered, True)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), logits
