"""Which shards count: the pin applied, overlap resolved, everything else set aside with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from orchestrator.intervals import Interval, add, subtract
from orchestrator.results.schemas import COVERAGE
from orchestrator.store.found import Found, Superseded, at_home
from orchestrator.store.rows import Piece, Rows
from workers.pins import Pin
from workers.shards import ShardInfo
from workers.storage import Folder
from workers.unit import Kind


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file among the shards that does not count, and why."""

    name: str
    reason: str
    file: str = ""  # that it was merged into; "" where it is one by itself
    later: bool = False  # written by a later robustsweep, which may know better


@dataclass
class Accepted:
    """The shards that count."""

    shards: Folder
    infos: list[ShardInfo] = field(default_factory=list)  # every valid one, whatever its weights
    coverage: dict[str, list[Interval]] = field(default_factory=dict)  # by cell id, sorted and disjoint
    set_aside: list[SetAside] = field(default_factory=list)
    twice: list[ShardInfo] = field(default_factory=list)  # all their rows are in shards published earlier
    found: list[Found] = field(default_factory=list)  # every valid file, superseded ones among them
    superseded: list[Superseded] = field(default_factory=list)  # all their shards are read from other files
    unreadable: list[SetAside] = field(default_factory=list)  # now; what they hold is not known
    from_footers: int = 0  # how many of them the index did not know, so that their footers had to be read
    _whole: list[ShardInfo] = field(default_factory=list)
    _parts: list[tuple[ShardInfo, dict[str, list[Interval]]]] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """What was set aside, a line for each reason, and whether what counts was made by one code."""
        found = [f"set aside {names}: {reason}" for names, reason in _by_reason(self.set_aside)]
        found += [
            f"cannot read {names} now, so they are not counted: {reason}"
            for names, reason in _by_reason(self.unreadable)
        ]
        codes = Counter(info.code for info in [*self._whole, *(info for info, _ in self._parts)])
        if len(codes) > 1:
            made = ", ".join(f"{n:,} by {code[:8] or 'unknown'}" for code, n in codes.most_common())
            found.append(
                f"shards by {len(codes)} states of robustsweep's source: {made}; where results differ, "
                "it may be the code that does"
            )
        return found

    def dataset(self, kind: Kind = "attack") -> pads.Dataset:
        """The accepted rows of a kind, each (cell, position) once, read lazily but for shards that count in
        part."""
        merged = {one.file: len(one.shards) for one in self.found if one.generation}
        return self.rows.dataset(self._pieces(), kind, merged)

    def pieces(self) -> dict[tuple[str, str], list[Piece]]:
        """By victim id and attack id, in the order of publication."""
        found: dict[tuple[str, str], list[Piece]] = {}
        for piece in self._pieces():
            found.setdefault((piece.info.victim_id, piece.info.attack_id), []).append(piece)
        return found

    @property
    def rows(self) -> Rows:
        """How to read rows of pieces; what it has opened is kept until it is let go."""
        return Rows(self.shards)

    def gone(self) -> bool:
        """Whether a file that rows are to be read from is not there any more."""
        there = {self.shards.relative(file.path) for file in self.shards.files(recursive=True)}
        return any(piece.info.path not in there for piece in self._pieces())

    def _pieces(self) -> list[Piece]:
        return [*map(Piece, self._whole), *(Piece(info, ranges) for info, ranges in self._parts)]

    def coverage_table(self) -> pa.Table:
        """One row for each accepted range of each cell of each shard, `results.COVERAGE`."""
        infos: list[ShardInfo] = []
        counts: list[int] = []
        cells: list[str] = []
        starts: list[int] = []
        stops: list[int] = []
        for info in self._whole:
            infos.append(info)
            counts.append(len(info.cells))
            cells += info.cells
            starts += [info.start] * len(info.cells)
            stops += [info.stop] * len(info.cells)
        for info, ranges in self._parts:
            here = [(cell, *one) for cell, intervals in ranges.items() for one in intervals]
            infos.append(info)
            counts.append(len(here))
            for cell, start, stop in here:
                cells.append(cell)
                starts.append(start)
                stops.append(stop)
        of = np.repeat(np.arange(len(infos)), counts)
        each = np.array([info.seconds / len(info.cells) / (info.stop - info.start) for info in infos])
        said = [
            pa.array([getattr(info, name) for info in infos], pa.string()).take(pa.array(of))
            for name in _SAID
        ]
        seconds = each[of] * (np.array(stops, np.int64) - np.array(starts, np.int64))
        return pa.table([cells, starts, stops, seconds, *said], schema=COVERAGE)


_SAID = ("device", "code", "versions")


def accept_found(
    shards: Folder,
    found: Sequence[Found],
    set_aside: Sequence[SetAside],
    pins: Mapping[str, Pin],
    *,
    unreadable: Sequence[SetAside] = (),
    from_footers: int = 0,
) -> Accepted:
    """`accept` of what files hold, each shard once, wherever it lies."""
    infos, superseded = at_home(found)
    accepted = accept(shards, infos, set_aside, pins, unreadable=unreadable, from_footers=from_footers)
    accepted.found, accepted.superseded = list(found), superseded
    return accepted


def accept(
    shards: Folder,
    infos: Sequence[ShardInfo],
    set_aside: Sequence[SetAside],
    pins: Mapping[str, Pin],
    *,
    unreadable: Sequence[SetAside] = (),
    from_footers: int = 0,
) -> Accepted:
    """Apply the pinned weights, then let each (cell, position) count once: in the shard published first."""
    result = Accepted(
        shards,
        list(infos),
        set_aside=list(set_aside),
        unreadable=list(unreadable),
        from_footers=from_footers,
    )
    weights = {victim_id: pin.weights for victim_id, pin in pins.items()}
    for info in infos:  # a folder that lost its pins: the same rule that decides between two pins
        for victim_id, own in _stands_on(info):
            if victim_id not in pins:
                weights[victim_id] = min(own, weights.get(victim_id, own))
    for info in sorted(infos, key=lambda info: (info.published_at, info.name)):
        if strange := [(own, weights[name]) for name, own in _stands_on(info) if own != weights[name]]:
            own, pinned = strange[0]
            reason = f"its victim had weights {own[:12]}…, this folder is pinned to {pinned[:12]}…"
            result.set_aside.append(SetAside(info.name, reason, info.file))
            continue
        whole = [(info.start, info.stop)]
        new: dict[str, list[Interval]] = {}
        for cell_id in info.cells:
            covered = result.coverage.get(cell_id, [])
            if not covered or covered[-1][1] <= info.start:  # as most are: behind what is there
                new[cell_id] = whole
                if covered and covered[-1][1] == info.start:
                    covered[-1] = covered[-1][0], info.stop
                else:
                    result.coverage.setdefault(cell_id, covered).append(whole[0])
            elif left := subtract(whole, covered):
                new[cell_id] = left
                result.coverage[cell_id] = add(covered, info.start, info.stop)
        if len(new) == len(info.cells) and all(left == whole for left in new.values()):
            result._whole.append(info)
        elif new:
            result._parts.append((info, new))
        else:
            result.twice.append(info)
    result.set_aside.sort(key=lambda one: one.name)
    return result


def _stands_on(info: ShardInfo) -> list[tuple[str, str]]:
    """The victims that a shard's rows speak of, with the weights that they had."""
    own = [(info.victim_id, info.weights)]
    return [*own, (info.source_id, info.source_weights)] if info.source_id else own


def _by_reason(files: Sequence[SetAside]) -> Iterator[tuple[str, str]]:
    """The files of each reason, in words, and the reason."""
    names: dict[str, list[str]] = {}
    for one in files:
        names.setdefault(one.reason, []).append(one.name)
    for reason, (first, *others) in names.items():
        yield f"shards/{first}{f' and {len(others):,} more' if others else ''}", reason
