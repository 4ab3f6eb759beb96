"""Where a training was at the end of an epoch, kept in the cache for whoever goes on with it."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers import layout
from workers.archives import BROKEN, ensure_sound
from workers.storage import Folder

_VERSION = 1  # of what is kept, and of the trainings that can go on from it
_SECONDS = 10.0  # of training before it is worth keeping
_SHARE = 20.0  # keeping may take one part in so many of the time


@dataclass(frozen=True, kw_only=True)
class Halfway:
    """A training after `epoch` epochs of one of its phases."""

    phase: str
    epoch: int
    rows: list[dict[str, Any]]  # of the history, of earlier phases too
    seconds: float  # that it has taken
    stopping: dict[str, Any]  # what early stopping goes by; empty: there is none
    noise: dict[str, Any]  # the state of the generator that augments images
    arrays: Mapping[str, list[NDArray[Any]]] = field(repr=False)  # variables, by what they are of


class Keeper:
    """Keeps one training's state in the cache, and finds what an earlier attempt has kept.

    The state counts for the same victim, data and library versions only: what goes on from it comes to the
    same weights, bit for bit, as what was never interrupted, on the same kind of machine. It is one file,
    whole or not at all, and the latest only. `every` are the seconds of training that are worth keeping; 0:
    every epoch is.
    """

    def __init__(
        self, folder: Folder, victim_id: str, of: Mapping[str, Any], *, every: float = _SECONDS
    ) -> None:
        self._folder, self._name = folder, layout.cached_training(victim_id)
        self._of = {"version": _VERSION, "victim_id": victim_id, **of}
        self._every, self._last, self._took = every, time.monotonic(), 0.0

    def find(self) -> Halfway | None:
        """What an earlier attempt has kept; None where there is nothing that this one can go on from."""
        try:
            data = io.BytesIO(self._folder.read(self._name))
            with zipfile.ZipFile(data) as archive:
                ensure_sound(archive)
            with np.load(data, allow_pickle=False) as file:
                said = json.loads(str(file["said"]))
                if said.pop("of") != json.loads(json.dumps(self._of)):
                    return None
                counts = said.pop("counts")
                arrays = {name: [file[f"{name}.{i}"] for i in range(n)] for name, n in counts.items()}
                return Halfway(arrays=arrays, **said)
        except (*BROKEN, TypeError, AttributeError):
            return None

    @property
    def due(self) -> bool:
        """Whether enough has been done since the last time to be worth keeping."""
        wait = max(self._every, _SHARE * self._took) if self._every else 0.0
        return time.monotonic() - self._last >= wait

    def keep(self, state: Halfway) -> None:
        """In place of what was kept before. A cache that cannot be written to stops no training."""
        begun = time.monotonic()
        said = {
            "of": self._of,
            "counts": {name: len(values) for name, values in state.arrays.items()},
            **{
                name: getattr(state, name)
                for name in ("phase", "epoch", "rows", "seconds", "stopping", "noise")
            },
        }
        named = {
            f"{name}.{i}": each for name, values in state.arrays.items() for i, each in enumerate(values)
        }
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, said=np.array(json.dumps(said)), **named)
        with suppress(OSError):
            self._folder.publish(self._name, file.getbuffer())
        self._last = time.monotonic()
        self._took = self._last - begun

    def forget(self) -> None:
        """The training is through."""
        with suppress(OSError):
            self._folder.delete(self._name)
