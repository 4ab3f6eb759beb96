"""Randomised smoothing: Gaussian noise and a vote, which certifies answers."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, InputTransformation


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class Smoothing(InputTransformation):
    """The class that a network answers most often under noise of standard deviation `sigma` on every pixel of
    every channel, which may leave [0, 1].

    Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing"
    (arXiv:1902.02918). Attacks meet it as they meet any randomised victim. Its certificates take `n0` draws
    to choose a class and `n` others to bound how often that is answered, and each is wrong with a
    probability of at most `alpha` (`workers.certify`); the paper takes 100, 100,000 and 0.001. What they take
    is no part of the victim. They are worth something only for a network that was trained with such noise
    (`gaussian_augmentation`).
    """

    name: ClassVar[str] = "smoothing"
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"sigma"})
    CERTIFICATE_OPTIONS: ClassVar[frozenset[str]] = frozenset({"n0", "n", "alpha"})

    sigma: Annotated[float, Field(gt=0, le=1)] = 0.25
    n0: Annotated[int, Field(ge=1, le=10**6)] = 100
    n: Annotated[int, Field(ge=1, le=10**7)] = 1000
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001

    @model_validator(mode="after")
    def _can_certify(self) -> Smoothing:
        # Even if all draws agree, their share is bounded by alpha^(1/n).
        least = math.floor(math.log(self.alpha) / math.log(0.5)) + 1
        if self.n < least:
            raise ValueError(
                f"n {self.n} certifies nothing at alpha {self.alpha:g}, however the draws fall; at least "
                f"{least} is allowed there"
            )
        return self

    def transform(self, images: Any, seed: Any) -> Any:
        import keras

        return images + keras.random.normal(keras.ops.shape(images), stddev=self.sigma, seed=seed)
