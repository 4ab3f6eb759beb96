"""The attacks against other libraries' and against their own floor: the same model, images and threads.

A floor is what the counted calls cost at the best batch size, nothing else. Needs MNIST (and, for the larger
network, CIFAR-10) in the folder that the environment's ROBUSTSWEEP_DATA names, and `pip install -e .[bench]`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import ART, CleverHans, Foolbox
from benchmarks.reading import Reading, alternate, median_ratio
from workers import metrics
from workers.attacks import AttackResult, build
from workers.attacks.gradients import Network, network_for
from workers.datasets import DATA_VARIABLE, load
from workers.victims.runtime import set_up_tensorflow

EPSILONS = (0.05, 0.1, 0.15, 0.2, 0.3)
L2_EPSILONS = (0.5, 1.0, 1.5, 2.0, 3.0)
ANY = 1e3  # an epsilon that every image is within
REPEATS = int(os.environ.get("ROBUSTSWEEP_BENCH_REPEATS", "7"))

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


@dataclass(frozen=True)
class Bench:
    """A model to attack, and test images (N, H, W, C) with their labels (N,).

    As in a sweep, an attack is told which images the model gets right: that is found once for all attacks.
    """

    name: str
    model: Any
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def run(self, config: Mapping[str, Any], n: int, epsilons: Sequence[float]) -> AttackResult:
        return build(config)(
            self.model, self.images[:n], self.labels[:n], epsilons, clean_correct=self.clean_correct[:n]
        )

    @cached_property
    def clean_correct(self) -> NDArray[np.bool_]:
        correct: NDArray[np.bool_] = self._logits(self.images).argmax(axis=1) == self.labels
        return correct

    def accuracy(self, images: NDArray[np.float32], epsilons: Sequence[float]) -> list[float]:
        """Robust accuracy (E,) of somebody's images (E, N, H, W, C), by our definitions."""
        n = images.shape[1]
        clean, labels, correct = self.images[:n], self.labels[:n], self.clean_correct[:n]
        robust = []
        for epsilon, found in zip(epsilons, images, strict=True):
            inside = metrics.within(metrics.linf(clean, found), epsilon)
            robust.append(float((correct & ~(metrics.fools(self._logits(found), labels) & inside)).mean()))
        return robust

    def median_distance(self, images: NDArray[np.float32]) -> float:
        """Over the examples that are right on the clean image; a failure counts as infinitely far."""
        n = len(images)
        clean, labels, correct = self.images[:n], self.labels[:n], self.clean_correct[:n]
        # Without our margin of 1e-4 logits: other libraries do not aim at it.
        found = self._logits(images).argmax(axis=1) != labels
        return float(np.median(np.where(found, metrics.l2(clean, images), np.inf)[correct]))

    def _logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return network_for(self.model, images.shape[1:]).logits(images)


def measure() -> list[Reading]:
    """All of it: about half an hour on two cores."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    set_up_tensorflow(cpus=os.cpu_count() or 1, gpus=0)
    mnist = mnist_cnn()
    readings = [*against_peers(mnist), *deep_carlini_wagner(mnist), *floors(mnist, 1000)]
    cifar = cifar_mobilenet()
    return [*readings, *small_budgets(cifar), *floors(cifar, 1000, FLOORED[:2])]


def mnist_cnn(train_examples: int = 20_000, epochs: int = 2) -> Bench:
    """Two convolutions, a pool and a dense layer of 128 on MNIST: 98% right on clean images."""
    import keras

    data = load({"name": "mnist"}, os.environ.get(DATA_VARIABLE))
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = np.arange(train_examples)
    model.fit(data.images("train", rows), data.labels("train", rows), epochs=epochs, batch_size=64, verbose=0)
    test = np.arange(1000)
    return Bench("MNIST CNN", model, data.images("test", test), data.labels("test", test).astype(np.int64))


def cifar_mobilenet() -> Bench:
    """MobileNetV2 0.35 with ImageNet weights at 80 pixels, its new head trained on frozen features.

    KERAS_HOME names the folder whose models/ holds the weights, unless Keras can download them.
    """
    import keras

    from workers.victims.architectures import build_model

    data = load({"name": "cifar10"}, os.environ.get(DATA_VARIABLE))
    options = {"name": "mobilenet_v2", "alpha": 0.35, "input_size": 80, "weights": "imagenet"}
    model = build_model(options, data.shape, data.classes)
    body = keras.Model(model.inputs[0], model.layers[-1].input)
    rows = np.arange(4000)
    features = body.predict(data.images("train", rows), batch_size=128, verbose=0)
    head = keras.Sequential([keras.Input(features.shape[1:]), keras.layers.Dense(data.classes)])
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    head.fit(features, data.labels("train", rows), epochs=20, batch_size=64, verbose=0)
    model.layers[-1].set_weights(head.layers[-1].get_weights())
    test = np.arange(1000)
    return Bench(
        "MobileNetV2 CIFAR-10", model, data.images("test", test), data.labels("test", test).astype(np.int64)
    )


def against_peers(bench: Bench) -> list[Reading]:
    """The sweep's usual work, ours and theirs in turn."""
    foolbox, cleverhans = Foolbox(bench.model), CleverHans(bench.model)
    art = ART(bench.model, bench.images, 10)
    budget = {"binary_search_steps": 5, "steps": 100}
    at_epsilons = [
        Work("FGSM, 5 epsilons", {"name": "fgsm"}, 1000, {"the fastest peer": 2.5}).peers(
            Foolbox=lambda x, y: foolbox.fgsm(x, y, EPSILONS),
            CleverHans=lambda x, y: cleverhans.fgsm(x, y, EPSILONS),
            ART=lambda x, y: art.fgsm(x, y, EPSILONS),
        ),
        Work("BIM, 5 epsilons", {"name": "bim"}, 1000, {"the fastest peer": 1.8, "Foolbox": 3.5}).peers(
            Foolbox=lambda x, y: foolbox.bim(x, y, EPSILONS, 10),
            CleverHans=lambda x, y: cleverhans.bim(x, y, EPSILONS, 10),
            ART=lambda x, y: art.bim(x, y, EPSILONS, 10),
        ),
    ]
    nearest = [
        Work("DeepFool L2", {"name": "deepfool", "norm": "l2"}, 200, {"Foolbox": 5.0}).peers(
            Foolbox=foolbox.deepfool, ART=art.deepfool
        ),
        Work(
            "C&W L2 5 × 100", {"name": "carlini_wagner", "norm": "l2", **budget}, 100, {"Foolbox": 2.0}
        ).peers(Foolbox=lambda x, y: foolbox.carlini_wagner(x, y, **budget, learning_rate=0.1)),
        Work("DDN, 100 steps", {"name": "ddn"}, 200, {}).peers(
            Foolbox=lambda x, y: foolbox.ddn(x, y, steps=100)
        ),
        Work("FMN L2, 100 steps", {"name": "fmn", "norm": "l2", "steps": 100}, 200, {}).peers(
            Foolbox=lambda x, y: foolbox.fmn(x, y, steps=100)
        ),
    ]
    readings = []
    for work in at_epsilons:
        readings += work.readings(bench, EPSILONS, lambda found: bench.accuracy(found, EPSILONS))
    for work in nearest:
        readings += work.readings(bench, [ANY], bench.median_distance)
    return readings


class Work:
    """One attack on so many images, by us and by others; `targets`: how many times faster than whom."""

    def __init__(self, what: str, config: Mapping[str, Any], n: int, targets: Mapping[str, float]) -> None:
        self._what, self._config, self._n, self._targets = what, config, n, targets
        self._peers: Mapping[str, Callable[..., Any]] = {}

    def peers(self, **peers: Callable[..., Any]) -> Work:
        self._peers = peers
        return self

    def readings(
        self, bench: Bench, epsilons: Sequence[float], judge: Callable[..., Any], repeats: int = REPEATS
    ) -> list[Reading]:
        images, labels = bench.images[: self._n], bench.labels[: self._n]
        found: dict[str, Any] = {}

        def ours() -> float:
            begun = time.perf_counter()
            found["ours"] = bench.run(self._config, self._n, epsilons)
            return time.perf_counter() - begun

        def theirs(name: str, attack: Callable[..., Any]) -> float:
            begun = time.perf_counter()
            found[name] = attack(images, labels).images
            return time.perf_counter() - begun

        ways = {"ours": ours, **{name: _bound(theirs, name, peer) for name, peer in self._peers.items()}}
        ours()  # traced
        seconds = alternate(ways, repeats=repeats)
        fastest = min(self._peers, key=lambda name: statistics.median(seconds[name]))
        label = f"{bench.name}, {self._what}, {self._n} images"
        readings = [Reading(what=f"{label}: ours", value=statistics.median(seconds["ours"]), unit="s")]
        for name in self._peers:
            least = self._targets.get(name)
            if name == fastest:
                least = max((self._targets.get("the fastest peer", 0), least or 0)) or None
            readings.append(
                Reading(
                    what=f"{label}: {name} / ours",
                    value=median_ratio(seconds[name], seconds["ours"]),
                    unit="×",
                    at_least=least,
                )
            )
        result = found.pop("ours")
        if len(epsilons) > 1:
            mine = result.robust_accuracy.tolist()
            for name, peer_images in found.items():
                worst = max(a - b for a, b in zip(mine, judge(peer_images), strict=True))
                readings.append(
                    Reading(
                        what=f"{label}: robust accuracy, ours less {name}'s, worst epsilon",
                        value=round(100 * worst, 3),
                        unit="points",
                        at_most=0.0 if self._targets else None,
                    )
                )
        else:
            mine = judge(result.images[0])
            for name, peer_images in found.items():
                readings.append(
                    Reading(
                        what=f"{label}: median distance, ours / {name}'s",
                        value=mine / judge(peer_images),
                        unit="",
                        at_most=1.0 if name in self._targets else None,
                    )
                )
        return readings


def deep_carlini_wagner(bench: Bench, n: int = 50) -> list[Reading]:
    """The distance of Foolbox's 9 × 1,000 at 0.01, and the time to get there. Minutes, so once."""
    foolbox = Foolbox(bench.model)
    begun = time.perf_counter()
    theirs = bench.median_distance(
        foolbox.carlini_wagner(
            bench.images[:n], bench.labels[:n], binary_search_steps=9, steps=1000, learning_rate=0.01
        ).images
    )
    slow = time.perf_counter() - begun
    begun = time.perf_counter()
    ours = bench.run({"name": "carlini_wagner"}, n, [ANY])
    fast = time.perf_counter() - begun
    label = f"{bench.name}, C&W L2, {n} images, our defaults and Foolbox at 9 × 1,000"
    return [
        Reading(what=f"{label}: Foolbox / ours", value=slow / fast, unit="×", at_least=5.0),
        Reading(
            what=f"{label}: median distance, ours / Foolbox's",
            value=bench.median_distance(ours.images[0]) / theirs,
            at_most=1.01,
        ),
    ]


def small_budgets(bench: Bench) -> list[Reading]:
    """A large network on few images, where tracing weighs in: the first call counts."""
    foolbox = Foolbox(bench.model)
    work = [
        Work("FGSM, 5 epsilons", {"name": "fgsm"}, 200, {}).peers(
            Foolbox=lambda x, y: foolbox.fgsm(x, y, EPSILONS)
        ),
        Work("BIM, 5 epsilons", {"name": "bim"}, 200, {}).peers(
            Foolbox=lambda x, y: foolbox.bim(x, y, EPSILONS, 10)
        ),
    ]
    network = Network(bench.model, bench.images.shape[1:])
    readings = []
    for call in (network.logits, lambda x: network.gradients(x, bench.labels[:8].astype(np.int32))):
        begun = time.perf_counter()
        call(bench.images[:8])
        name = "forward" if call == network.logits else "gradient"
        readings.append(
            Reading(what=f"{bench.name}: tracing a {name}", value=time.perf_counter() - begun, unit="s")
        )
    for each in work:
        readings += each.readings(
            bench, EPSILONS, lambda found: bench.accuracy(found, EPSILONS), repeats=min(3, REPEATS)
        )
    return readings


def floors(bench: Bench, n: int, configs: Sequence[Mapping[str, Any]] = FLOORED) -> list[Reading]:
    """Each attack's time over what its calls cost alone, timed just before and after."""
    readings = []
    for config in configs:
        norm = build(config).norm
        epsilons = EPSILONS if norm == "linf" else L2_EPSILONS
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


def _bound(function: Callable[..., float], *arguments: Any) -> Callable[[], float]:
    return lambda: function(*arguments)
