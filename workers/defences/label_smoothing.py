"""Labels that are not quite certain."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, Answers, TrainingDefence


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class LabelSmoothing(TrainingDefence):
    """A share `smoothing` of each label spread evenly over all classes, its own among them.

    Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer Vision"
    (arXiv:1512.00567), whose epsilon it is. It makes gradients small, which is no robustness: attacks that go
    by their direction do not mind.
    """

    name: ClassVar[str] = "label_smoothing"

    smoothing: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def losses(self, answers: Answers, images: Any, altered: Any, labels: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        logits = answers(altered, True)
        classes = logits.shape[1]
        targets = (1 - self.smoothing) * tf.one_hot(labels, classes) + self.smoothing / classes
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits), logits
