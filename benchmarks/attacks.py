"""The attacks: against other libraries' and against their own floor.

Needs MNIST (and, for the larger network, CIFAR-10) in the folder that the environment's ROBUSTSWEEP_DATA
names, and `pip install -e .[bench]`.
"""

from __future__ import annotations

import os

from benchmarks.floors import FLOORED, floors
from benchmarks.models import cifar_mobilenet, mnist_cnn
from benchmarks.races import against_peers, deep_carlini_wagner, small_budgets
from benchmarks.reading import Reading
from workers.machine import available_cpus
from workers.runtime import set_up_tensorflow


def measure() -> list[Reading]:
    """All of it: about half an hour on two cores."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    set_up_tensorflow(cpus=available_cpus(), gpus=0)
    mnist = mnist_cnn()
    readings = [*against_peers(mnist), *deep_carlini_wagner(mnist), *floors(mnist, 1000)]
    cifar = cifar_mobilenet()
    return [*readings, *small_budgets(cifar), *floors(cifar, 1000, FLOORED[:2])]
