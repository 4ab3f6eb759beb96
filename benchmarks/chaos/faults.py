"""What is done to a sweep, and when: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Place = Literal["ray", "cluster", "inline"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault: what it is in words, and what docs/running.md says that it may come to.

    `takes`: how many units in flight it may cost; None: one for each worker. `codes`: how a run may end
    because of it, beside 0 and, where a unit has failed for good, 1.
    """

    what: str
    takes: int | None
    codes: tuple[int, ...] = ()


KINDS: Mapping[str, Kind] = {
    "worker": Kind("a worker is killed", 1),
    "driver": Kind("the driver is killed", None, (-9,)),
    "raylet": Kind("Ray's node process is killed, the driver's own Ray", None, (2,)),
    "gcs": Kind("Ray's head is killed, the driver's own Ray", None, (2, 3)),
    "node": Kind("a machine of a cluster is killed, all its processes at once", 1),
    "node raylet": Kind("a machine's node process is killed", 1),
    "removed": Kind("a machine is taken out of a cluster (SIGTERM)", 1),
    "added": Kind("a machine joins a cluster", 0),
    "head": Kind("the head of a cluster is killed", None, (3,)),
    "full": Kind("the disk of the output is full", None, (2,)),
    "read-only": Kind("the disk of the output becomes read-only", None, (2,)),
    "write": Kind("a write fails with an input/output error", None, (2,)),
    "hang": Kind("a unit hangs", 1),
    "memory": Kind("a unit holds more memory than there is: its process is ended", 1),
    "clock": Kind("the clock of driver and workers is set back by an hour", 0),
    "drivers": Kind("a second driver runs into the folder", 0),
    "compact": Kind("small shards are merged and removed meanwhile (`compact`)", 0),
    "compact killed": Kind("a process that merges them is killed", 0),
    "cache": Kind("the cache of victims is lost while the driver is down", None, (-9,)),
}
"""In the order of the report."""

NODE_LOCAL = ("node", "node raylet", "removed")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, due once so many units of the trial have begun and `delay` seconds have gone since then.

    `choice` in [0, 1) decides which of several processes or units it befalls.
    """

    kind: str
    after: int
    delay: float
    choice: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A sweep of `units` units on `place`, and what befalls it. `real`: with TensorFlow, on the digits."""

    name: str
    place: Place
    units: int
    faults: tuple[Fault, ...]
    real: bool = False
    disk: bool = False  # the output is a disk of its own, which needs root
    pace: float = 1.0  # of made-up units: 2 is half as fast
    mutation: str = ""  # something is broken on purpose, to see that it is noticed

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(fault.kind for fault in self.faults))


def drawn(rng: random.Random, units: int, kinds: Mapping[str, int]) -> tuple[Fault, ...]:
    """So many faults of each kind, at random among the first 85% of the units, in order."""
    due = [kind for kind, times in kinds.items() for _ in range(times)]
    rng.shuffle(due)
    moments = sorted(rng.randrange(1, max(2, int(0.85 * units))) for _ in due)
    return tuple(
        Fault(kind, after, round(rng.uniform(0.0, 0.3), 3), rng.random())
        for kind, after in zip(due, moments, strict=True)
    )


LONG: Sequence[tuple[str, Place, int, Mapping[str, int], Mapping[str, Any]]] = (
    ("disk", "inline", 200, {"full": 5, "read-only": 5, "driver": 2}, {"disk": True}),
    ("failing writes, one process", "inline", 240, {"write": 24, "driver": 2}, {}),
    ("clock", "inline", 160, {"clock": 4, "driver": 2}, {}),
    ("failing writes", "ray", 300, {"write": 40}, {}),
    ("two drivers", "ray", 240, {"drivers": 4, "driver": 2, "worker": 4}, {"pace": 4.0}),
    ("units", "ray", 240, {"hang": 4, "memory": 4, "worker": 3}, {}),
    (
        "compact",
        "ray",
        240,
        {"compact": 5, "compact killed": 5, "worker": 4, "driver": 1, "drivers": 1},
        {"pace": 4.0},
    ),
    ("workers and drivers", "ray", 320, {"worker": 20, "driver": 5}, {}),
    ("cluster", "cluster", 300, {"node": 3, "node raylet": 2, "removed": 3, "added": 8, "worker": 8}, {}),
    ("Ray itself", "ray", 240, {"raylet": 3, "gcs": 3, "worker": 2}, {}),
    ("workers", "ray", 600, {"worker": 40}, {}),
    ("TensorFlow", "ray", 60, {"worker": 2, "driver": 1, "cache": 1}, {"real": True}),
    # Slow enough for a driver to be sure, after half a minute, that its head is gone.
    ("cluster's head", "cluster", 120, {"head": 2, "worker": 2}, {"pace": 8.0}),
    ("disk and Ray", "ray", 160, {"full": 2, "worker": 3}, {"disk": True}),
    ("clock and Ray", "ray", 160, {"clock": 4, "worker": 3, "driver": 1}, {}),
)
"""A round: name, place, units, how often each kind, and fields of the trial."""

SMOKE: Sequence[tuple[str, Place, int, Mapping[str, int], Mapping[str, Any]]] = (
    (
        "one process",
        "inline",
        40,
        {"driver": 1, "drivers": 1, "clock": 1, "compact": 1, "compact killed": 1},
        {},
    ),
    ("disk", "inline", 40, {"full": 1, "read-only": 1, "write": 2}, {"disk": True}),
    (
        "machines",
        "cluster",
        80,
        {"worker": 1, "driver": 1, "hang": 1, "memory": 1, "node": 1, "removed": 1, "added": 1},
        {},
    ),
)
"""Every kind once, but for the cache, which takes TensorFlow, and for Ray's own processes, whose deaths
`tests/test_ray_backend.py` and `tests/test_ray_elastic.py` are about. No second driver is beside a unit that
takes all memory or writes that fail: it might be the one whom it befalls."""

BROKEN: Sequence[tuple[str, Place, int, Mapping[str, int], Mapping[str, Any]]] = (
    ("a file appears before it is whole", "inline", 16, {}, {"mutation": "torn"}),
    ("what is in two shards counts twice", "ray", 120, {"drivers": 2}, {"pace": 4.0, "mutation": "twice"}),
    ("a driver takes a lost unit for done", "ray", 80, {"worker": 4}, {"mutation": "forgetful"}),
    ("a driver forgets shards that are there", "inline", 80, {"driver": 2}, {"mutation": "redone"}),
    (
        "a file is called published before the disk has its name",
        "inline",
        40,
        {"read-only": 2},
        {"disk": True, "mutation": "hasty"},
    ),
)
"""Promises that are broken on purpose, which must be noticed (`sabotage.MUTATIONS`)."""


def trials(seed: int, rounds: int = 1, *, smoke: bool = False, only: Sequence[str] = ()) -> list[Trial]:
    """What a seed comes to: the same list whenever it is asked for. `only` names trials."""
    found = []
    for number in range(rounds):
        broken = () if smoke or number else BROKEN
        for name, place, units, kinds, fields in (*(SMOKE if smoke else LONG), *broken):
            # By name, so that a part of the list is what it is in the whole.
            faults = drawn(random.Random(f"{seed}/{number}/{name}"), units, kinds)
            if not only or name in only:
                found.append(Trial(name, place, units, faults, **fields))
    return found
