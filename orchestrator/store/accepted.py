"""Which shards count: the pin applied, overlap resolved, everything else set aside with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from orchestrator.intervals import Interval, add, subtract
from workers.pins import Pin
from workers.shards import SCHEMA, SCHEMAS, ShardInfo, fragment
from workers.storage import Folder
from workers.unit import Kind


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file among the shards that does not count, and why."""

    name: str
    reason: str


class Piece(NamedTuple):
    """A shard that counts: whole, or only those positions of its cells."""

    info: ShardInfo
    ranges: Mapping[str, Sequence[Interval]] | None = None


@dataclass
class Accepted:
    """The shards that count."""

    shards: Folder
    infos: list[ShardInfo] = field(default_factory=list)  # every valid one, whatever its weights
    coverage: dict[str, list[Interval]] = field(default_factory=dict)  # by cell id, sorted and disjoint
    set_aside: list[SetAside] = field(default_factory=list)
    twice: list[ShardInfo] = field(default_factory=list)  # all their rows are in shards published earlier
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
        whole = [info for info in self._whole if info.kind == kind]
        parts = [(info, ranges) for info, ranges in self._parts if info.kind == kind]
        files = pads.FileSystemDataset(
            [fragment(self.shards, info.name, info.size) for info in whole],
            SCHEMAS[kind],
            pads.ParquetFileFormat(),
            filesystem=self.shards.filesystem,
        )
        if not parts:
            return files
        rows = pa.concat_tables([self._part(info, ranges) for info, ranges in parts])
        return pads.dataset([files, pads.dataset(rows)])

    def pieces(self) -> dict[tuple[str, str], list[Piece]]:
        """By victim id and attack id, in the order of publication."""
        found: dict[tuple[str, str], list[Piece]] = {}
        for piece in [*map(Piece, self._whole), *(Piece(info, ranges) for info, ranges in self._parts)]:
            found.setdefault((piece.info.victim_id, piece.info.attack_id), []).append(piece)
        return found

    def read(self, piece: Piece, columns: Sequence[str]) -> pa.Table:
        """Those columns of the rows that count; null where an earlier version had no such column."""
        if piece.ranges is not None:
            return self._part(piece.info, piece.ranges).select(columns)
        shard = fragment(self.shards, piece.info.name, piece.info.size)
        known = set(shard.physical_schema.names)
        here = [name for name in columns if name in known]
        table = shard.to_table(columns=here, use_threads=False).replace_schema_metadata(None)
        for name in set(columns) - set(here):
            table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
        return table.select(columns)

    def _part(self, info: ShardInfo, ranges: Mapping[str, Sequence[Interval]]) -> pa.Table:
        schema = SCHEMAS[info.kind]
        table = fragment(self.shards, info.name, info.size).to_table(schema=schema)
        keep = pa.scalar(False)
        cell, position = table["cell_id"], table["position"]
        for cell_id, intervals in ranges.items():
            for start, stop in intervals:
                inside = pc.and_(pc.greater_equal(position, start), pc.less(position, stop))
                keep = pc.or_(keep, pc.and_(pc.equal(cell, cell_id), inside))
        return table.filter(keep).replace_schema_metadata(None)

    def coverage_rows(self) -> list[dict[str, Any]]:
        """One row for each accepted cell of each shard, as `results.COVERAGE`."""
        whole = [
            (info, {cell_id: [(info.start, info.stop)] for cell_id in info.cells}) for info in self._whole
        ]
        return [
            {
                "cell_id": cell_id,
                "start": start,
                "stop": stop,
                "seconds": info.seconds / len(info.cells) * (stop - start) / (info.stop - info.start),
                "device": info.device,
                "code": info.code,
                "versions": info.versions,
            }
            for info, ranges in [*whole, *self._parts]
            for cell_id, intervals in ranges.items()
            for start, stop in intervals
        ]


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
            result.set_aside.append(SetAside(info.name, reason))
            continue
        new: dict[str, list[Interval]] = {}
        for cell_id in info.cells:
            covered = result.coverage.get(cell_id, [])
            if left := subtract([(info.start, info.stop)], covered):
                new[cell_id] = left
                result.coverage[cell_id] = add(covered, info.start, info.stop)
        if len(new) == len(info.cells) and all(left == [(info.start, info.stop)] for left in new.values()):
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
