"""Resizing at random, and padding to the former size at random."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation, Shape


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class RandomResizePad(InputTransformation):
    """Every image shrunk to a random size and put at a random place of a black one of the size it had.

    Sizes are whole pixels from `least` times the image's to its own, all equally likely; so are the places.
    Bilinear interpolation. Xie, Wang, Zhang, Ren and Yuille, "Mitigating Adversarial Effects Through
    Randomization" (arXiv:1711.01991), who enlarge images and pad them further, from 299 to 331 pixels: the
    networks here take images of one size. Its gradient is its own, and attacks take its mean over draws.
    """

    name: ClassVar[str] = "random_resize_pad"

    least: Annotated[float, Field(gt=0, lt=1)] = 0.9

    def misfit(self, shape: Shape) -> str:
        small = min(int(side * self.least) for side in shape[:2]) < 1
        return f"with least {self.least:g} would shrink the images to nothing" if small else ""

    def transform(self, images: Any, seed: Any) -> Any:
        import keras

        drawn = keras.random.uniform((3, keras.ops.shape(images)[0]), seed=seed)
        height, width = images.shape[1:3]
        rows = self._resized(height, drawn[0], drawn[1])
        columns = self._resized(width, drawn[0], drawn[2])
        resized = keras.ops.einsum("nyh,nhwc->nywc", rows, images)
        return keras.ops.einsum("nxw,nywc->nyxc", columns, resized)

    def _resized(self, side: int, size: Any, place: Any) -> Any:
        """What each of `side` pixels of a line is made of, (N, side, side), for draws from [0, 1), (N,)."""
        from keras import ops

        least = int(side * self.least)
        size = least + ops.floor(size * (side + 1 - least))
        first = ops.floor(place * (side + 1 - size))
        pixels = ops.arange(side, dtype="float32")
        inside = pixels[None] - first[:, None]  # place in the resized line
        source = ops.clip((inside + 0.5) * (side / size)[:, None] - 0.5, 0, side - 1)
        weights = ops.maximum(0.0, 1 - ops.abs(source[:, :, None] - pixels))
        shown = (inside >= 0) & (inside < size[:, None])
        return weights * ops.cast(shown, "float32")[:, :, None]
