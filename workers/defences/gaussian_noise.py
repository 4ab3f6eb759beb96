"""Gaussian noise, drawn anew each time that a network answers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class GaussianNoise(InputTransformation):
    """Noise of standard deviation `sigma` added to every pixel of every channel, which may leave [0, 1].

    Li, Chen, Wang and Carin, "Certified Adversarial Robustness with Additive Noise" (arXiv:1809.03113). Its
    gradient is the identity's, and attacks take its mean over draws.
    """

    name: ClassVar[str] = "gaussian_noise"
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"sigma"})

    sigma: Annotated[float, Field(gt=0, le=1)] = 0.1

    def transform(self, images: Any, seed: Any) -> Any:
        import keras

        return images + keras.random.normal(keras.ops.shape(images), stddev=self.sigma, seed=seed)
