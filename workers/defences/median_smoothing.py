"""A median filter: pixels that stand out from their neighbours are replaced."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation, Shape


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class MedianSmoothing(InputTransformation):
    """Every pixel of every channel replaced by the median of the `size` × `size` pixels around it.

    Of an even size that is the window that has the pixel in its lower right, and the larger of the two values
    in its middle; beyond its edges the image is mirrored. Xu, Evans and Qi, "Feature Squeezing: Detecting
    Adversarial Examples in Deep Neural Networks" (arXiv:1704.01155). Its gradient goes to the selected pixel.
    """

    name: ClassVar[str] = "median_smoothing"

    size: Annotated[int, Field(ge=2, le=5)] = 2

    def misfit(self, shape: Shape) -> str:
        enough = min(shape[:2]) >= self.size
        return "" if enough else f"with a size of {self.size} takes images of at least {self.size} pixels"

    def transform(self, images: Any, seed: Any) -> Any:
        import tensorflow as tf

        height, width = images.shape[1:3]
        before, after = self.size // 2, (self.size - 1) // 2
        padded = tf.pad(images, [(0, 0), (before, after), (before, after), (0, 0)], mode="SYMMETRIC")
        window = [
            padded[:, down : down + height, right : right + width]
            for down in range(self.size)
            for right in range(self.size)
        ]
        # Each pixel of the window is asked whether it is the one: sorting's own gradient takes several times
        # as long as all else.
        median = _middle([tf.stop_gradient(pixel) for pixel in window])
        selected, free = tf.zeros_like(images), tf.ones_like(images)
        for pixel in window:
            here = tf.stop_gradient(tf.cast(pixel == median, tf.float32) * free)
            free -= here
            selected += pixel * here
        return selected


def _middle(values: list[Any]) -> Any:
    """The median, element by element, of tensors of one shape; of two in the middle the larger."""
    import tensorflow as tf

    values = list(values)
    for least in range(len(values) // 2 + 1):
        for place in range(len(values) - 1, least, -1):
            lower = tf.minimum(values[place - 1], values[place])
            values[place] = tf.maximum(values[place - 1], values[place])
            values[place - 1] = lower
    return values[len(values) // 2]
