"""What attacks ascend: losses of the logits, each (B,) from logits (B, K), labels (B,) and targets (B,).

Higher means nearer to success. `targets` matter to those named targeted only. Ratios need three or four
classes; with fewer, the plain difference stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SATURATED = 1e-6
"""A label's probability this close to 1 leaves float32 too few digits for the cross-entropy's gradient."""

_TINY = 1e-12


def cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """−log p(label), to full precision however confident the model is."""
    import tensorflow as tf

    return tf.nn.softplus(_log_sum_of_others(logits, labels) - _at(logits, labels))


def targeted_cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """log p(target)."""
    return -cross_entropy(logits, targets, targets)


def margin(logits: Any, labels: Any, targets: Any) -> Any:
    """The best other logit less the label's: the f of Carlini and Wagner (arXiv:1608.04644)."""
    import tensorflow as tf

    return tf.reduce_max(_without(logits, labels), axis=1) - _at(logits, labels)


def targeted_margin(logits: Any, labels: Any, targets: Any) -> Any:
    """The target's logit less the best other one."""
    return -margin(logits, targets, targets)


def difference(logits: Any, labels: Any, targets: Any) -> Any:
    """The target's logit less the label's."""
    return _at(logits, targets) - _at(logits, labels)


def dlr(logits: Any, labels: Any, targets: Any) -> Any:
    """Croce and Hein's difference of logits ratio (arXiv:2003.01690): the margin over z₁ − z₃, sorted."""
    import tensorflow as tf

    if logits.shape[1] < 3:
        return margin(logits, labels, targets)
    ranked = tf.math.top_k(logits, 3).values
    return margin(logits, labels, targets) / (ranked[:, 0] - ranked[:, 2] + _TINY)


def targeted_dlr(logits: Any, labels: Any, targets: Any) -> Any:
    """The targeted ratio of the same paper: z_target − z_label over z₁ − (z₃ + z₄) / 2, sorted."""
    import tensorflow as tf

    if logits.shape[1] < 4:
        return difference(logits, labels, targets)
    ranked = tf.math.top_k(logits, 4).values
    scale = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2
    return difference(logits, labels, targets) / (scale + _TINY)


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    loss.__name__: loss
    for loss in (
        cross_entropy,
        targeted_cross_entropy,
        margin,
        targeted_margin,
        difference,
        dlr,
        targeted_dlr,
    )
}


def value_and_slope(name: str, logits: Any, labels: Any, targets: Any) -> tuple[Any, Any]:
    """A loss (B,) and its derivative by the logits (B, K), up to a positive factor for each image."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = LOSSES[name](logits, labels, targets)
        if (
            name == "cross_entropy"
        ):  # the library's own kernel, so that gradients equal everyone's, bit for bit
            ascended = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            ascended = value
    slope = tape.gradient(ascended, logits)
    if name == "cross_entropy":
        # The kernel rounds 1 - p(label) away; with enough confidence all of the gradient underflows.
        others = tf.nn.softmax(_without(logits, labels)) - _one_hot(logits, labels)
        slope = tf.where((value < SATURATED)[:, None], others, slope)
    return value, slope


def _one_hot(logits: Any, classes: Any) -> Any:
    import tensorflow as tf

    return tf.one_hot(classes, logits.shape[1])


def _at(logits: Any, classes: Any) -> Any:
    import tensorflow as tf

    return tf.gather(logits, classes, axis=1, batch_dims=1)


def _without(logits: Any, classes: Any) -> Any:
    import tensorflow as tf

    return tf.where(_one_hot(logits, classes) > 0, tf.float32.min, logits)


def _log_sum_of_others(logits: Any, classes: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_logsumexp(_without(logits, classes), axis=1)
