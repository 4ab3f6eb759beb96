"""The pixel scale that a model was trained on: what makes of an image in [0, 1] what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Normalisation(NamedTuple):
    """(x − mean) / std of images in [0, 1]; one value for all channels, or one for each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


NORMALISATIONS: dict[str, Normalisation] = {
    # Over random crops of ImageNet's training images; Keras' `preprocess_input(mode="torch")` has it too.
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The next two over all pixels of all training images, channel by channel.
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "mnist": Normalisation((0.1307,), (0.3081,)),
}
"""Published ones, by name."""


@dataclass(frozen=True, slots=True)
class PixelScale:
    """An image in [0, 1] times `factor`, plus `offset`: each (1,), or (C,) for C channels."""

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    option: str = ""  # that says it in a grid

    @classmethod
    def between(cls, low: float, high: float) -> PixelScale:
        """Pixels from `low`, which is black, to `high`."""
        return cls((high - low,), (low,), f"pixel_range: [{low:g}, {high:g}]")

    @classmethod
    def normalised(cls, mean: Sequence[float], std: Sequence[float]) -> PixelScale:
        """(x − mean) / std."""
        channels = max(len(mean), len(std))
        means, stds = (np.broadcast_to(np.array(each, np.float64), channels) for each in (mean, std))
        name = name_of(mean, std) or f"{{mean: {_written(mean)}, std: {_written(std)}}}"
        return cls(tuple((1 / stds).tolist()), tuple((-means / stds).tolist()), f"normalise: {name}")

    @property
    def is_unit(self) -> bool:
        """Whether it leaves images as they are."""
        return set(self.factor) == {1} and set(self.offset) == {0}

    def fits(self, channels: int) -> bool:
        return len(self.factor) in (1, channels)

    def apply(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, H, W, C) in [0, 1], as the model takes them."""
        scaled: NDArray[np.float32] = images * np.array(self.factor, np.float32)
        return scaled + np.array(self.offset, np.float32)

    def undo(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `apply`."""
        shifted: NDArray[np.float32] = images - np.array(self.offset, np.float32)
        return np.asarray(shifted / np.array(self.factor, np.float32), np.float32)


UNIT = PixelScale.between(0, 1)


def stated(options: Mapping[str, Any]) -> PixelScale | None:
    """What a model's options `pixel_range` and `normalise` say; None where they say nothing."""
    if options.get("pixel_range"):
        return PixelScale.between(*options["pixel_range"])
    if options.get("normalise"):
        return PixelScale.normalised(**options["normalise"])
    return None


def name_of(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """The name of a published normalisation; None for any other."""
    same = (name for name, known in NORMALISATIONS.items() if known == (tuple(mean), tuple(std)))
    return next(same, None)


def _written(values: Sequence[float]) -> str:
    numbers = [f"{value:.4g}" for value in values]
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"
