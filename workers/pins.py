"""Which weights an output folder's results belong to: each victim's, fixed at first use.

A pin is the file `pins/<victim_id>.<hash>.json`; its name says it all, its content is the manifest of the
weights. Two workers may pin one victim at once: everyone then goes by the smaller hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from workers import layout
from workers.recorded import as_json
from workers.storage import READERS, Folder
from workers.victims.manifest import Manifest

FRESH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Pin:
    """The weights that a victim's results in one output folder belong to."""

    victim_id: str
    weights: str  # SHA-256
    manifest: Mapping[str, Any]


def read_pins(output: Folder) -> dict[str, Pin]:
    """Every victim's pin, by victim id."""
    pinned = pinned_weights(output)
    with ThreadPoolExecutor(READERS) as pool:
        pins = pool.map(lambda item: read_pin(output, *item), pinned.items())
        return {pin.victim_id: pin for pin in pins}


def pinned_weights(output: Folder) -> dict[str, str]:
    """Victim id -> hash of its pinned weights, from one listing."""
    pins = (layout.pinned_by(file.base_name) for file in output.files(layout.PINS))
    found = [pin for pin in pins if pin]
    return dict(sorted(found, reverse=True))  # the smallest hash of a victim comes last, and stays


def find_pin(output: Folder, victim_id: str) -> Pin | None:
    """A victim's pin, if it has one."""
    weights = pinned_weights(output).get(victim_id)
    return read_pin(output, victim_id, weights) if weights else None


def named_pins(output: Folder) -> dict[str, Pin]:
    """Every victim's pin, by victim id, with no more of its manifest than a listing shows."""
    return {
        victim_id: Pin(victim_id, weights, {"victim_id": victim_id, "weights": weights})
        for victim_id, weights in pinned_weights(output).items()
    }


class Pinned:
    """What an output folder is pinned to, as a worker goes by it from unit to unit.

    Looked up each time; on an object store, where that is a request, what was seen `FRESH_SECONDS` ago still
    counts. A pin that another one takes the place of meanwhile costs the units of that time.
    """

    def __init__(self, output: Folder, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._seen: dict[str, str] = {}
        self._at = float("-inf")

    def weights(self, victim_id: str) -> str | None:
        """The hash of a victim's pinned weights, if it is pinned."""
        age = self._clock() - self._at
        if self._output.is_local or age > FRESH_SECONDS or victim_id not in self._seen:
            self._seen, self._at = pinned_weights(self._output), self._clock()
        return self._seen.get(victim_id)


def pin(output: Folder, manifest: Manifest) -> Pin:
    """Pin a victim to the manifest's weights if it has no pin, and return the pin that counts."""
    victim_id = manifest.victim_id
    if victim_id not in pinned_weights(output):
        output.publish(layout.pin(victim_id, manifest.weights), manifest.to_json())
    return read_pin(output, victim_id, pinned_weights(output)[victim_id])


def read_pin(output: Folder, victim_id: str, weights: str) -> Pin:
    """The pin of a victim that is pinned to these weights, with what can be read of its manifest."""
    identity = {"victim_id": victim_id, "weights": weights}
    try:
        content = as_json(output.read(layout.pin(victim_id, weights)))
    except (OSError, ValueError):
        content = {}  # the name alone decides which shards count
    return Pin(victim_id, weights, {**content, **identity} if isinstance(content, dict) else identity)
