"""Training for answers that do not change nearby."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.ascent import AttackedTraining, ascend, gradient_of
from workers.defences.base import OPTIONS_CONFIG, Answers, Moment

_STEPS = 10
_REACH = 2.5  # the sum of all steps, in epsilons
_START = 1e-3  # standard deviation of the noise that the steps start from


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class Trades(AttackedTraining):
    """The cross-entropy of clean images, and `beta` times how far the answers nearby are from theirs.

    How far, is the Kullback-Leibler divergence KL(p(clean) ‖ p(moved)) of the softmax; images are moved to
    raise it, in `steps` (10) of 2.5 / `steps` of epsilon, from noise of 0.001. Zhang, Yu, Jiao, Xing, El
    Ghaoui and Jordan, "Theoretically Principled Trade-off between Robustness and Accuracy"
    (arXiv:1901.08573), whose 1/λ is `beta`: 6 for CIFAR-10, 1 for MNIST.
    """

    name: ClassVar[str] = "trades"

    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 6.0

    @property
    def taken_steps(self) -> int:
        return self.steps or _STEPS

    @property
    def step_size(self) -> float:
        return self.relative_step_size or _REACH / self.taken_steps

    @property
    def gradients(self) -> int:
        return self.taken_steps + 2  # the last by the weights, of clean and moved images

    def altered(self, answers: Answers, images: Any, labels: Any, moment: Moment) -> Any:
        import tensorflow as tf

        clean = tf.nn.softmax(answers(images, False))
        return ascend(
            # The derivative of the divergence by the logits of the moved images.
            gradient_of(answers, lambda logits: tf.nn.softmax(logits) - clean),
            images,
            labels,
            images + tf.random.stateless_normal(tf.shape(images), moment.seed, stddev=_START),
            norm=self.norm,
            radius=self.radius(moment),
            steps=self.taken_steps,
            step_size=self.step_size,
        ).images

    def losses(self, answers: Answers, images: Any, altered: Any, labels: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        clean, moved = answers(images, True), answers(altered, True)
        wrong = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, clean)
        log_clean, log_moved = tf.nn.log_softmax(clean), tf.nn.log_softmax(moved)
        apart = tf.reduce_sum(tf.exp(log_clean) * (log_clean - log_moved), axis=1)
        return wrong + self.beta * apart, moved
