"""Attacks against their own floor: what the calls that they count cost at the best batch size, alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.models import Bench
from benchmarks.reading import Reading
from workers.attacks import build
from workers.network import network_for

EPSILONS = {"linf": (0.05, 0.1, 0.15, 0.2, 0.3), "l2": (0.5, 1.0, 1.5, 2.0, 3.0)}

FLOORED: tuple[Mapping[str, Any], ...] = (
    {"name": "fgsm"},
    {"name": "bim"},
    {"name": "pgd", "steps": 10},
    {"name": "noise"},
    {"name": "deepfool", "norm": "l2"},
    {"name": "deepfool", "norm": "linf"},
    {"name": "carlini_wagner", "steps": 20, "binary_search_steps": 2},
    {"name": "ddn", "steps": 20},
    {"name": "fmn", "norm": "l2", "steps": 20},
    {"name": "fmn", "norm": "linf", "steps": 20},
    {"name": "apgd", "steps": 10},
    {"name": "apgd", "norm": "l2", "steps": 10, "targeted_classes": 1},
    {"name": "fab", "norm": "linf", "steps": 2, "targeted_classes": 3},
    {"name": "fab", "norm": "l2", "steps": 2, "targeted_classes": 3},
    {"name": "square", "queries": 20},
    {"name": "square", "norm": "l2", "queries": 20},
)
"""Enough of each attack that its time a call is what is measured."""


def floors(bench: Bench, n: int, configs: Sequence[Mapping[str, Any]] = FLOORED) -> list[Reading]:
    """Each attack's time over what its calls cost alone, timed just before and after."""
    readings = []
    for config in configs:
        norm = build(config).norm
        epsilons = EPSILONS[norm]
        bench.run(config, 300, epsilons)
        ratios = []
        for _ in range(3):
            before = call_costs(bench)
            begun = time.perf_counter()
            result = bench.run(config, n, epsilons)
            seconds = time.perf_counter() - begun
            gradient, forward = (
                statistics.mean(pair) for pair in zip(before, call_costs(bench), strict=True)
            )
            floor = result.gradient_calls.sum() * gradient + result.forward_calls.sum() * forward
            ratios.append(seconds / floor)
        readings.append(
            Reading(
                what=f"{bench.name}, {config['name']} {norm}, {n} images: time / floor",
                value=statistics.median(ratios),
                unit="×",
                at_most=1.5,
            )
        )
    return readings


def call_costs(bench: Bench, n: int = 512) -> tuple[float, float]:
    """Seconds an image of a gradient and of a forward pass, in batches of the best size."""
    network = network_for(bench.model, bench.images.shape[1:])
    images, labels = bench.images[:n], bench.labels[:n].astype(np.int32)
    costs = []
    for call in (lambda: network.gradients(images, labels), lambda: network.logits(images)):
        call()
        begun = time.perf_counter()
        call()
        costs.append((time.perf_counter() - begun) / n)
    return costs[0], costs[1]
