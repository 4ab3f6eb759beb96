"""Fewer grey levels: what lies between two of them is rounded away."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class BitDepth(InputTransformation):
    """Every pixel of every channel rounded to the nearest of 2^`bits` levels from 0 to 1.

    Xu, Evans and Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks"
    (arXiv:1704.01155), who take 1 bit for MNIST and 5 or 4 for CIFAR-10. Its gradient is 0 wherever it has
    one; the identity's is taken instead.
    """

    name: ClassVar[str] = "bit_depth"

    bits: Annotated[int, Field(ge=1, le=8)] = 5

    def transform(self, images: Any, seed: Any) -> Any:
        import tensorflow as tf

        steps = 2.0**self.bits - 1
        return tf.round(images * steps) / steps

    def surrogate(self, images: Any) -> Any:
        import tensorflow as tf

        return tf.identity(images)
