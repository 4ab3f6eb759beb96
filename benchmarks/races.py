"""Attacks of ours against those of other libraries: the same model, images and threads, in turn."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.models import Bench
from benchmarks.peers import ART, CleverHans, Foolbox
from benchmarks.reading import Reading, alternate, median_ratio
from workers.network import Network

EPSILONS = (0.05, 0.1, 0.15, 0.2, 0.3)
ANY = 1e3  # an epsilon that every image is within
REPEATS = int(os.environ.get("ROBUSTSWEEP_BENCH_REPEATS", "7"))


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
        Work(
            "BIM, 5 epsilons",
            {"name": "bim", "like": "foolbox"},
            1000,
            {"the fastest peer": 1.8, "Foolbox": 3.5},
        ).peers(
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
        Work("BIM, 5 epsilons", {"name": "bim", "like": "foolbox"}, 200, {}).peers(
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


def _bound(function: Callable[..., float], *arguments: Any) -> Callable[[], float]:
    return lambda: function(*arguments)
