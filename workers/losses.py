"""What attacks ascend: losses of the logits, each (B,) from logits (B, K), labels (B,) and targets (B,).

Higher means nearer to success. `targets` matter to those named targeted only. Ratios need three or four
classes; with fewer, the plain difference stands in.

Multiplying a model's logits by a constant changes no direction of ascent: the cross-entropy looks at logits
stretched to a spread of their own for each image, and ratios have no scale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SPREAD = 30.0
"""What the cross-entropy stretches logits to, from the least to the largest.

Small networks answer with a spread of 5 to 30 on their own. Where it is far less, the softmax is flat, and
all classes but the label pull alike: BIM at epsilon 0.1 left 49% of a CNN's MNIST images at a tenth of its
spread of 15, 28% at 15, and 27% from three times that on.
"""

SATURATED = 1e-6
"""A label's probability this close to 1 leaves float32 too few digits for the cross-entropy's gradient."""


def cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """−log p(label) of logits stretched to `SPREAD`, to full precision however confident the model is."""
    return raw_cross_entropy(_stretched(logits), labels, targets)


def raw_cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """−log p(label) of the logits as they are, which other libraries ascend; to full precision too."""
    import tensorflow as tf

    return tf.nn.softplus(_log_sum_of_others(logits, labels) - _at(logits, labels))


def targeted_cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """log p(target)."""
    return -cross_entropy(logits, targets, targets)


def targeted_raw_cross_entropy(logits: Any, labels: Any, targets: Any) -> Any:
    """log p(target), of the logits as they are."""
    return -raw_cross_entropy(logits, targets, targets)


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
    return _ratio(margin(logits, labels, targets), ranked[:, 0] - ranked[:, 2])


def targeted_dlr(logits: Any, labels: Any, targets: Any) -> Any:
    """The targeted ratio of the same paper: z_target − z_label over z₁ − (z₃ + z₄) / 2, sorted."""
    import tensorflow as tf

    if logits.shape[1] < 4:
        return difference(logits, labels, targets)
    ranked = tf.math.top_k(logits, 4).values
    scale = ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2
    return _ratio(difference(logits, labels, targets), scale)


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    loss.__name__: loss
    for loss in (
        cross_entropy,
        targeted_cross_entropy,
        raw_cross_entropy,
        targeted_raw_cross_entropy,
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

    if not name.endswith("cross_entropy"):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = LOSSES[name](logits, labels, targets)
        return value, tape.gradient(value, logits)
    # The slope by the stretched logits: that by the logits is a multiple of it, image by image.
    if "raw" not in name:
        logits = _stretched(logits)
    if name.startswith("targeted"):
        value, slope = _cross_entropy_and_slope(logits, targets)
        return -value, -slope
    return _cross_entropy_and_slope(logits, labels)


def _cross_entropy_and_slope(logits: Any, classes: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    value = raw_cross_entropy(logits, classes, classes)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        # The library's own kernel, so that gradients equal everyone's, bit for bit.
        ascended = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
    slope = tape.gradient(ascended, logits)
    # The kernel rounds 1 - p away; with enough confidence all of the gradient underflows.
    others = tf.nn.softmax(_without(logits, classes)) - _one_hot(logits, classes)
    return value, tf.where((value < SATURATED)[:, None], others, slope)


def _stretched(logits: Any) -> Any:
    """Logits of each image from −`SPREAD` to 0; all 0 where they are the same."""
    import tensorflow as tf

    below = logits - tf.reduce_max(logits, axis=1, keepdims=True)
    return SPREAD * _ratio(below, -tf.reduce_min(below, axis=1, keepdims=True))


def _ratio(numerator: Any, denominator: Any) -> Any:
    """0 where the denominator is."""
    import tensorflow as tf

    return tf.math.divide_no_nan(numerator, denominator)


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
