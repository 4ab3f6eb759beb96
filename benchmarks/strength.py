"""How strong the attacks are on plain and on robust networks: against each other and against their peers.

Needs MNIST in the folder that the environment's ROBUSTSWEEP_DATA names, and `pip install -e .[bench]`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.models import Bench, mnist_cnn, robust_cnn
from benchmarks.peers import ART, Foolbox
from benchmarks.reading import Reading
from workers.machine import available_cpus
from workers.norms import NORMS, NormName
from workers.runtime import set_up_tensorflow

ANY = 1e3  # an epsilon that every image is within
SLACK = 1.0  # points: what one example of a hundred may owe to a random start

ATTACKS: dict[str, dict[str, Any]] = {
    "FGSM": {"name": "fgsm"},
    "BIM like Foolbox": {"name": "bim", "like": "foolbox"},
    "BIM": {"name": "bim"},
    "PGD like Foolbox": {"name": "pgd", "like": "foolbox"},
    "PGD, margin": {"name": "pgd", "loss": "margin"},
    "PGD": {"name": "pgd"},
    "APGD, 1 restart": {"name": "apgd", "restarts": 1},
    "APGD": {"name": "apgd"},
}
"""What is measured at each epsilon."""

NEAREST: dict[str, dict[str, Any]] = {
    "FAB": {"name": "fab"},
    "FMN with the paper's steps": {"name": "fmn", "max_step_size": 1.0},
    "FMN": {"name": "fmn"},
}
"""Whose distances are compared."""


def measure(examples: int = 200, train_examples: int = 10_000, epochs: int = 16) -> Iterator[Reading]:
    """Robust accuracies in percent and median distances, as they come: about half an hour on two cores."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    set_up_tensorflow(cpus=available_cpus(), gpus=0)
    plain = mnist_cnn(train_examples, epochs=3, strides=2)
    linf, l2 = (
        robust_cnn(norm, epsilon, train_examples=train_examples, epochs=epochs)
        for norm, epsilon in (("linf", 0.2), ("l2", 2.0))
    )
    cases: list[tuple[Bench, NormName, tuple[float, ...]]] = [
        (plain, "linf", (0.05, 0.1)),
        (plain, "l2", (0.6, 1.2)),
        (linf, "linf", (0.2, 0.25)),
        (l2, "l2", (1.5, 2.0)),
    ]
    for case in cases:
        yield from _compared(*case, examples)


def _compared(bench: Bench, norm: NormName, epsilons: Sequence[float], n: int) -> Iterator[Reading]:
    images, labels = bench.images[:n], bench.labels[:n]
    foolbox, art = Foolbox(bench.model), ART(bench.model, images, 10)
    robust = {
        name: 100 * bench.run({"norm": norm, **config}, n, epsilons).robust_accuracy
        for name, config in ATTACKS.items()
    }
    peers = {"Foolbox's PGD": foolbox.pgd, "ART's APGD, 5 restarts": art.apgd}
    for name, peer in peers.items():
        found = peer(images, labels, epsilons, norm).images
        robust[name] = 100 * np.array(bench.accuracy(found, epsilons, NORMS[norm]))
    bounds = {
        "BIM": [robust["FGSM"], robust["BIM like Foolbox"]],
        "PGD": [robust["FGSM"], robust["BIM"], robust["PGD like Foolbox"], robust["Foolbox's PGD"]],
        "APGD": [robust["PGD"], robust["ART's APGD, 5 restarts"]],
    }
    for k, epsilon in enumerate(epsilons):
        for name, values in robust.items():
            # At least as strong as whatever it is held against.
            limit = min(each[k] for each in bounds[name]) + SLACK if name in bounds else None
            what = f"{bench.name}, {norm} {epsilon:g}: {name}"
            yield Reading(what=what, value=float(values[k]), unit="%", at_most=limit)
    distance = {}
    for name, config in NEAREST.items():
        result = bench.run({"norm": norm, **config}, n, [ANY])
        distance[name] = float(np.median(result.distance[0, result.clean_correct]))
    for name, value in distance.items():
        # In L2 FAB, with nine times the gradients, may be nearer by some percent.
        limit = (1.01 if norm == "linf" else 1.03) * min(distance.values()) if name == "FMN" else None
        yield Reading(what=f"{bench.name}, {norm}, median distance: {name}", value=value, at_most=limit)
