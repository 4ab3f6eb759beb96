"""Runs into one folder at the same time: each begins elsewhere, and leaves out what others have done.

Nothing is locked, so nothing can be left locked. What two runs do compute twice counts once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from orchestrator.run.status import life
from orchestrator.store.folder import Store
from orchestrator.store.records import Status
from workers.unit import Evaluation, Transfer

_LAST = 8  # of the latest runs, so many are asked whether they live


class Share(NamedTuple):
    """What a run does first: one of `of` like parts of whatever there is to do."""

    rank: int = 0
    of: int = 1

    def takes(self, number: int) -> bool:
        return number % self.of == self.rank

    def has(self, name: str) -> bool:
        """Whether it falls to this share; every run sees it the same way, whatever else its plan holds."""
        return self.takes(zlib.crc32(name.encode()))


_Unit = TypeVar("_Unit", bound=Evaluation | Transfer)


def in_turn(units: Sequence[_Unit], share: Callable[[], Share]) -> Iterator[_Unit]:
    """Every unit once: in order while the run is alone; its share first, the others from the end, if not.

    Runs that help out each start at another place, so that they meet only as the last units are handed out.
    A share may change with every run that comes; what is left is then begun anew.
    """
    begin = 0
    while begin < len(units) and share().of == 1:  # nothing is held of what is to come
        yield units[begin]
        begin += 1
    left = dict.fromkeys(range(begin, len(units)))
    while left:
        now = share()
        for place in _turn(units, list(left), now):
            del left[place]
            yield units[place]
            if share() != now:
                break


def _turn(units: Sequence[_Unit], left: Sequence[int], share: Share) -> Iterator[int]:
    """The places that are left, as a run with that share takes them."""
    turn = len(left) * share.rank // share.of
    mine = {place for place in left if share.has(units[place].unit_id)}
    yield from (place for place in left if place in mine)
    yield from (place for place in chain(left[:turn][::-1], left[turn:][::-1]) if place not in mine)


class Peers:
    """The other runs that are writing to a folder."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._sequences: dict[str, int] = {}
        self._over = {run_id}  # runs that need no second look: this one, and those that have ended
        self.live: list[Status] = []

    def look(self) -> list[Status]:
        """See who lives; those that have come since the last look. Costs a listing and a few small files."""
        before = {status.run_id for status in self.live}
        self.live = []
        for run_id in self._store.latest_runs(_LAST):
            status = None if run_id in self._over else self._store.read_status(run_id)
            if status and self._lives(status):
                self.live.append(status)
        return [status for status in self.live if status.run_id not in before]

    def _lives(self, status: Status) -> bool:
        before = self._sequences.get(status.run_id)
        self._sequences[status.run_id] = status.sequence
        match life(status):
            case "live":
                return True
            case "unknown":  # clocks may differ; a number that moves does not lie
                return before is not None and before != status.sequence
            case _:
                self._over.add(status.run_id)
                return False

    @property
    def share(self) -> Share:
        """This run's, by the order of the runs' ids."""
        runs = sorted([self._run_id, *(status.run_id for status in self.live)])
        return Share(runs.index(self._run_id), len(runs))
