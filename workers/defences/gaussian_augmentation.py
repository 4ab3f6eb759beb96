"""Training on noisy images."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, Answers, Moment, TrainingDefence


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class GaussianAugmentation(TrainingDefence):
    """Noise of standard deviation `sigma` added to every training image, drawn anew each time, not clipped.

    Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing"
    (arXiv:1902.02918), who train so what is smoothed afterwards; by itself it is the noise injection of
    Bishop, "Training with Noise is Equivalent to Tikhonov Regularization" (1995).
    """

    name: ClassVar[str] = "gaussian_augmentation"
    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"sigma"})
    alters_images: ClassVar[bool] = True

    sigma: Annotated[float, Field(gt=0, le=1)] = 0.25

    def altered(self, answers: Answers, images: Any, labels: Any, moment: Moment) -> Any:
        import tensorflow as tf

        return images + tf.random.stateless_normal(tf.shape(images), moment.seed, stddev=self.sigma)
