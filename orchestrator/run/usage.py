"""What workers are held for: from when one is ready until it is gone, busy or not, by device."""

from __future__ import annotations

from dataclasses import dataclass

from workers.shards import device_text

UNKNOWN = device_text("", 0)
"""The device of workers that have ended no unit yet: what they are is learnt from what they report."""


@dataclass(slots=True)
class _Held:
    since: float
    device: str = UNKNOWN
    devices: float = 1.0


class Usage:
    """Device seconds. Time is the caller's: seconds from any moment on."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._past: dict[str, float] = {}

    def began(self, worker: str, now: float) -> None:
        """A worker is ready."""
        self._held[worker] = _Held(now)

    def learnt(self, worker: str, device: str, devices: float) -> None:
        """What it has: so many CPUs, or GPUs, of a device."""
        self._held[worker].device, self._held[worker].devices = device, devices

    def ended(self, worker: str, now: float) -> None:
        """A worker is gone, whatever it was on; of one that was never ready nothing is known."""
        if (held := self._held.pop(worker, None)) is not None:
            _add(self._past, held, now)

    def hours(self, now: float) -> dict[str, float]:
        """Device hours so far, by device."""
        total = self._past.copy()
        for held in self._held.copy().values():
            _add(total, held, now)
        return {device: seconds / 3600 for device, seconds in sorted(total.items()) if seconds}


def _add(total: dict[str, float], held: _Held, now: float) -> None:
    total[held.device] = total.get(held.device, 0.0) + (now - held.since) * held.devices
