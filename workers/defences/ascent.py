"""Projected gradient ascent inside a training's step: traced with it, in a fixed number of steps.

The engine of attacks keeps each example's own control flow in NumPy, and leaves an example once it is broken.
Training wants the highest loss of every image whatever breaks, so that nothing is to be decided between
steps: traced together they take three quarters to nine tenths of the time (docs/performance.md). Losses are
those of `workers.losses`; steps and projections do what `workers.norms` says, on tensors.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from workers.defences.base import OPTIONS_CONFIG, Answers, Moment, TrainingDefence
from workers.losses import value_and_slope
from workers.norms import NormName

Gradient = Callable[[Any], tuple[Any, Any]]
"""Of images (N, H, W, C): the logits (N, K), and the gradient of what is ascended, each image's own."""

_WRITTEN_OUT = 12
"""So many steps are traced one behind the other. A loop is traced in less time; but in some processes, not in
others, TensorFlow 2.21 takes nearly twice as long for its steps on CPUs (docs/performance.md)."""

_EXAMINED_STEPS, _EXAMINED_STEP = 10, 0.25  # of PGD on validation images; a step as a share of epsilon


@dataclass(frozen=True, kw_only=True, config=OPTIONS_CONFIG)
class AttackedTraining(TrainingDefence):
    """Training on images moved within `epsilon` of the clean ones, on the [0, 1] scale, to raise a loss.

    A step is of `relative_step_size` epsilons; None: as the defence says. Epsilon grows in a line from 0 over
    the first `ramp` epochs of the phase: at the whole of it from the first step, small networks never leave
    chance. None: a third of the epochs; 0: no ramp.
    """

    PIXEL_OPTIONS: ClassVar[frozenset[str]] = frozenset({"epsilon"})
    alters_images: ClassVar[bool] = True
    attacks: ClassVar[bool] = True
    examined_gradients: ClassVar[int] = _EXAMINED_STEPS + 1  # that `examined` takes for an image, or nearly

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    norm: NormName = "linf"
    steps: Annotated[int, Field(ge=1)] | None = None
    relative_step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    ramp: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _in_the_box(self) -> AttackedTraining:
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"found epsilon {self.epsilon:g} times the width of the pixel range; at most 1 is allowed "
                "in linf"
            )
        return self

    @property
    @abstractmethod
    def taken_steps(self) -> int:
        """How many steps an image is moved by."""

    @property
    @abstractmethod
    def step_size(self) -> float:
        """Of each, as a share of epsilon."""

    @property
    def gradients(self) -> int:
        return self.taken_steps + 1

    def misfit_of(self, epochs: int) -> str:
        if self.ramp is None or self.ramp < epochs:
            return ""
        return (
            f"with a ramp of {self.ramp} epochs does not train at its epsilon within {epochs}; at most "
            f"{epochs - 1} is allowed, or null for a third of them"
        )

    def ramp_of(self, epochs: int) -> float:
        """Epochs of so many after which it trains at the whole of epsilon."""
        return epochs / 3 if self.ramp is None else self.ramp

    def radius(self, moment: Moment) -> Any:
        """Epsilon as it is now, a scalar tensor."""
        import tensorflow as tf

        ramp = self.ramp_of(moment.epochs)
        share = tf.minimum(1.0, moment.epoch / ramp) if ramp else tf.constant(1.0)
        return tf.cast(self.epsilon * share, tf.float32)

    def examined(self, answers: Answers, images: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        """Images under PGD of 10 steps at the whole of epsilon, whatever it is trained against.

        Moved, and which of them kept their labels at every step, (N,) bool: any other is broken. It ascends
        what attacks here ascend, the cross-entropy of stretched logits (`workers.losses`), which finds more.
        """
        found = pgd(
            answers,
            images,
            labels,
            norm=self.norm,
            radius=self.epsilon,
            steps=_EXAMINED_STEPS,
            step_size=_EXAMINED_STEP,
            seed=seed,
            loss="cross_entropy",
        )
        return found.images, found.held & _right(answers(found.images, False), labels)


class Ascended(NamedTuple):
    images: Any  # (N, H, W, C)
    held: Any  # (N,) bool: every image before had its label


def pgd(
    answers: Answers,
    images: Any,
    labels: Any,
    *,
    norm: NormName,
    radius: Any,
    steps: int,
    step_size: float,
    seed: Any,
    loss: str = "raw_cross_entropy",
) -> Ascended:
    """Images (N, H, W, C) moved up a loss of `workers.losses` from a point drawn uniformly from the ball.

    `radius` is on the [0, 1] scale, `step_size` a share of it, `seed` (2,) int32. Madry et al.
    (arXiv:1706.06083).
    """
    import tensorflow as tf

    classes = tf.cast(labels, tf.int32)

    def slope(logits: Any) -> Any:
        return value_and_slope(loss, logits, classes, classes)[1]

    start = images + radius * drawn(norm, tf.shape(images), seed)
    gradient = gradient_of(answers, slope)
    return ascend(gradient, images, labels, start, norm=norm, radius=radius, steps=steps, step_size=step_size)


def gradient_of(answers: Answers, slope: Callable[[Any], Any]) -> Gradient:
    """By images, of what has this derivative by the logits; in inference mode, as attacks have it."""
    import tensorflow as tf

    def gradient(images: Any) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = answers(images, False)
        return logits, tape.gradient(logits, images, output_gradients=slope(logits))

    return gradient


def ascend(
    gradient: Gradient,
    clean: Any,
    labels: Any,
    start: Any,
    *,
    norm: NormName,
    radius: Any,
    steps: int,
    step_size: float,
) -> Ascended:
    """Take `steps` from `start`, each `step_size` radii long, within the ball around `clean` and [0, 1]."""
    import tensorflow as tf

    def step(images: Any, held: Any) -> tuple[Any, Any]:
        logits, upwards = gradient(images)
        moved = images + step_size * radius * direction(norm, upwards)
        return confined(norm, moved, clean, radius), held & _right(logits, labels)

    found = confined(norm, start, clean, radius), tf.ones_like(labels, tf.bool)
    if steps <= _WRITTEN_OUT:
        for _ in range(steps):
            found = step(*found)
    else:
        found = tf.while_loop(lambda *_: True, step, found, maximum_iterations=steps, parallel_iterations=1)
    return Ascended(tf.stop_gradient(found[0]), found[1])


def _right(logits: Any, labels: Any) -> Any:
    import tensorflow as tf

    return tf.equal(tf.argmax(logits, axis=1), tf.cast(labels, tf.int64))


# -- `workers.norms`, on tensors --------------------------------------------------------------------------


def direction(norm: NormName, gradients: Any) -> Any:
    """As `Norm.direction`: the step of length 1 along gradients (N, H, W, C); 0 for a zero gradient."""
    import tensorflow as tf

    if norm == "linf":
        return tf.sign(gradients)
    # By the largest first: squares and reciprocals of what is tiny leave float32.
    largest = tf.reduce_max(tf.abs(gradients), axis=(1, 2, 3), keepdims=True)
    unit = tf.math.divide_no_nan(gradients, largest)
    return tf.math.divide_no_nan(unit, _length(unit))


def confined(norm: NormName, images: Any, clean: Any, radius: Any) -> Any:
    """As `Norm.confine`: images clipped to [0, 1], moved into the ball around `clean`, and clipped again."""
    import tensorflow as tf

    change = tf.clip_by_value(images, 0.0, 1.0) - clean
    if norm == "linf":
        change = tf.clip_by_value(change, -radius, radius)
    else:
        change *= tf.minimum(1.0, tf.math.divide_no_nan(radius, _length(change)))
    return tf.clip_by_value(clean + change, 0.0, 1.0)


def drawn(norm: NormName, shape: Any, seed: Any) -> Any:
    """As `Norm.draw` for each of the images: a point of the ball of radius 1, all equally likely."""
    import tensorflow as tf

    if norm == "linf":
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    whither, how_far = tf.unstack(tf.random.split(seed, 2))
    size = tf.cast(tf.reduce_prod(shape[1:]), tf.float32)
    lengths = tf.random.stateless_uniform((shape[0], 1, 1, 1), how_far) ** (1 / size)
    return direction("l2", tf.random.stateless_normal(shape, whither)) * lengths


def _length(vectors: Any) -> Any:
    """(N, 1, 1, 1)."""
    import tensorflow as tf

    return tf.sqrt(tf.reduce_sum(tf.square(vectors), axis=(1, 2, 3), keepdims=True))
