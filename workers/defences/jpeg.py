"""JPEG compression: what the eye would not miss is left out."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation, Shape

_FORMATS = {1: "grayscale", 3: "rgb"}
"""By the channels of an image."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class Jpeg(InputTransformation):
    """Every image rounded to 8 bits, compressed as a JPEG of that `quality`, and decompressed.

    Colours at half the resolution, as is usual. Guo, Rana, Cisse and van der Maaten, "Countering Adversarial
    Images using Input Transformations" (arXiv:1711.00117), with a quality of 75. It has no gradient; the
    identity's is taken instead, as Athalye, Carlini and Wagner did to break it (arXiv:1802.00420).
    """

    name: ClassVar[str] = "jpeg"
    compiles: ClassVar[bool] = False

    quality: Annotated[int, Field(ge=1, le=100)] = 75

    def misfit(self, shape: Shape) -> str:
        return "" if shape[2] in _FORMATS else "takes images of 1 or 3 channels"

    def transform(self, images: Any, seed: Any) -> Any:
        import tensorflow as tf

        channels = images.shape[-1]

        def compressed(image: Any) -> Any:
            data = tf.io.encode_jpeg(image, format=_FORMATS[channels], quality=self.quality)
            return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")

        levels = tf.cast(tf.round(tf.clip_by_value(images, 0.0, 1.0) * 255.0), tf.uint8)
        decoded = tf.map_fn(compressed, levels, fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8))
        return tf.cast(decoded, tf.float32) / 255.0

    def surrogate(self, images: Any) -> Any:
        import tensorflow as tf

        return tf.identity(images)
