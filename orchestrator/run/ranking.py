"""Things in the order of keys that change: a heap in which outdated entries stay until they come up."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

_Thing = TypeVar("_Thing", bound=Hashable)

_SLACK = 64  # outdated entries that are not worth a sweep


class Ranking(Generic[_Thing]):
    """The things that have a key, the least key first. `put` and `first` take the logarithm of their number.

    Keys are tuples that compare; no two things may have the same one.
    """

    def __init__(self) -> None:
        self._keys: dict[_Thing, tuple[Any, ...]] = {}
        self._heap: list[tuple[tuple[Any, ...], _Thing]] = []

    def put(self, thing: _Thing, key: tuple[Any, ...] | None) -> None:
        """Rank it by this key from now on; None: not at all."""
        if self._keys.get(thing) == key:
            return
        if key is None:
            del self._keys[thing]
        else:
            self._keys[thing] = key
            heappush(self._heap, (key, thing))
        if len(self._heap) > 4 * len(self._keys) + _SLACK:
            self._heap = [(key, thing) for thing, key in self._keys.items()]
            heapify(self._heap)

    def first(self, suits: Callable[[_Thing], bool]) -> _Thing | None:
        """The first that suits; as fast as that is near the front."""
        aside, found = [], None
        while self._heap:
            key, thing = self._heap[0]
            if self._keys.get(thing) != key:
                heappop(self._heap)
            elif suits(thing):
                found = thing
                break
            else:
                aside.append(heappop(self._heap))
        for entry in aside:
            heappush(self._heap, entry)
        return found
