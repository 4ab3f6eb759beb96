"""Multiplying a model's logits, or its gradients, by a constant changes no prediction and no number."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.support.models import digits_cnn
from workers.attacks import build

pytestmark = pytest.mark.tf

CONFIGS: list[dict[str, Any]] = [
    {"name": "fgsm"},
    {"name": "bim", "steps": 5},
    {"name": "bim", "steps": 5, "norm": "l2"},
    {"name": "pgd", "steps": 5},
    {"name": "apgd", "steps": 8},
    {"name": "apgd", "steps": 8, "loss": "dlr", "norm": "l2"},
    {"name": "square", "queries": 30},
    {"name": "noise", "repeats": 3},
    {"name": "deepfool"},
    {"name": "deepfool", "norm": "linf"},
    {"name": "fab", "steps": 5, "targeted_classes": 3},
    {"name": "fab", "steps": 5, "targeted_classes": 3, "norm": "l2"},
    {"name": "ddn", "steps": 20},
    {"name": "fmn", "steps": 20},
    {"name": "fmn", "steps": 20, "norm": "linf"},
    {"name": "carlini_wagner", "steps": 20, "binary_search_steps": 3},
    {"name": "standard", "steps": 5, "queries": 20, "targeted_classes": 3},
]
EPSILONS = {"linf": [0.05, 0.1, 0.15], "l2": [0.3, 0.6, 1.0]}
COUNT = 100


def label(config: dict[str, Any]) -> str:
    return "-".join(str(config[key]) for key in ("name", "norm", "loss") if key in config)


@cache
def logits_times(scale: float) -> Any:
    model = digits_cnn().model
    return lambda images: model(images, training=False) * scale


@cache
def gradients_times(scale: float) -> Any:
    """The same answers; what flows back through them is multiplied."""
    model = digits_cnn().model

    @tf.custom_gradient
    def faded(images: tf.Tensor) -> Any:
        return tf.identity(images), lambda upstream: scale * upstream

    return lambda images: model(faded(images), training=False)


def robust(config: dict[str, Any], model: Any) -> Any:
    attack = build(config)
    digits = digits_cnn()
    return attack(model, digits.images[:COUNT], digits.labels[:COUNT], EPSILONS[attack.norm]).robust_accuracy


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_the_scale_of_logits_changes_nothing(config: dict[str, Any]) -> None:
    expected = robust(config, logits_times(1.0))
    assert expected[0] > expected[-1] or config["name"] == "noise"
    for scale in (1e-6, 1e-2, 1e6):
        np.testing.assert_allclose(robust(config, logits_times(scale)), expected, atol=1.01 / COUNT)


# The others take from a gradient's length how far to go; a length that is not true is a fault of the model,
# which its probes show.
BY_DIRECTION = ("fgsm", "bim", "pgd", "apgd", "ddn", "standard")


@pytest.mark.parametrize("config", [each for each in CONFIGS if each["name"] in BY_DIRECTION], ids=label)
def test_gradients_of_any_size_point_the_same_way(config: dict[str, Any]) -> None:
    expected = robust(config, gradients_times(1.0))
    np.testing.assert_allclose(robust(config, gradients_times(1e-18)), expected, atol=1.01 / COUNT)
