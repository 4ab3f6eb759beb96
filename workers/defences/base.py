"""What every defence is: validated options, and what becomes of a network that has it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

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
    at_inference: ClassVar[bool] = (
        False  # it acts when a network answers, whose weights it leaves as they are
    )

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
