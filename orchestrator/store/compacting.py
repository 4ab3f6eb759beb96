"""Small shards merged into few files, while others read and write; what has been merged removed later.

Nothing is removed before all of the file that it was merged into has been read back from where it lies, and
found to hold what was merged. Every step is whole or not at all, and what is to be done follows from the
files alone: whoever begins again after a crash goes on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import StoreError
from orchestrator.store.accepted import Accepted, SetAside
from orchestrator.store.folder import Store
from orchestrator.store.found import Found, Superseded
from orchestrator.store.listing import remove
from orchestrator.store.merged import DamagedError, Member, Merger, Stored, verify
from orchestrator.store.rows import widened
from workers import layout
from workers.shards import FOOTER_KEY, SCHEMAS, UNREADABLE, InvalidShardError, ShardInfo, shard_of
from workers.storage import READERS, redacted
from workers.unit import Kind

GRACE = 3600.0
"""Seconds for which what has been merged stays: readers that have listed it go on undisturbed."""

_GROUP_ROWS, _GROUP_BYTES = 65_536, 2**24  # of a row group, at the most where it has more than one shard
_LEAST_ROWS = 2_000  # from so many on, another attack begins another row group
_BATCH = 256  # shards that are read ahead


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a merged file is not added to. One of less than half of each may be merged again."""

    bytes: int = 2**27
    rows: int = 5_000_000
    shards: int = 20_000

    def small(self, found: Found) -> bool:
        size = 2 * found.size < self.bytes
        rows = 2 * sum(shard.rows for shard in found.shards) < self.rows
        return size and rows and 2 * len(found.shards) < self.shards


class Group(NamedTuple):
    """Small files of one victim that become one, or a few."""

    victim_id: str
    kind: Kind
    files: tuple[Found, ...]
    shards: tuple[ShardInfo, ...]  # those that have none but these to be in, in the order of the new files


@dataclass(frozen=True, slots=True)
class Compaction:
    """What there is to be done in a folder at a moment."""

    groups: Sequence[Group]
    removable: Sequence[Superseded]  # merged long enough ago
    waiting: Sequence[Superseded]  # not yet
    grace: float  # seconds for which what is merged stays


@dataclass(slots=True)
class Compacted:
    """What has been done."""

    merged: int = 0  # files that were merged
    merged_bytes: int = 0
    into: list[tuple[str, int]] = field(default_factory=list)  # the new files, and their bytes
    removed: int = 0
    removed_bytes: int = 0
    waiting: int = 0  # files that a later call removes
    waiting_bytes: int = 0
    left: list[SetAside] = field(default_factory=list)  # files that were to be merged or removed, and why not

    def record(self) -> dict[str, int]:
        return {
            "merged": self.merged,
            "merged_bytes": self.merged_bytes,
            "into": len(self.into),
            "into_bytes": sum(size for _, size in self.into),
            "removed": self.removed,
            "removed_bytes": self.removed_bytes,
            "waiting": self.waiting,
            "waiting_bytes": self.waiting_bytes,
            "left": len(self.left),
        }


def plan_compaction(
    accepted: Accepted, *, grace: float = GRACE, limits: Limits = Limits(), now: float | None = None
) -> Compaction:
    """What `compact` would do. `grace` and `now` in seconds, the latter since the epoch; pure.

    Merged are files that count. What is set aside, or stored twice, stays as it is.
    """
    idle, partly = _idle(accepted), _partly(accepted)
    home = {info.name: info for info in accepted.infos}
    small = {found.file: found for found in accepted.found if limits.small(found)}
    groups: dict[tuple[str, Kind], list[Found]] = {}
    for found in small.values():
        own = [shard for shard in found.shards if home[shard.name].path == found.file]
        if any(shard.name not in idle for shard in own):
            groups.setdefault((own[0].victim_id, own[0].kind), []).append(found)
    now = time.time() if now is None else now
    due = [grace <= 0 or one.since / 1e9 + grace <= now for one in accepted.superseded]
    return Compaction(
        [
            Group(
                victim_id,
                kind,
                tuple(files),
                tuple(
                    sorted(
                        (shard for one in files for shard in one.shards if home[shard.name] is shard),
                        key=lambda shard: (
                            shard.attack_id,
                            shard.name in partly,
                            shard.published_at,
                            shard.name,
                        ),
                    )
                ),
            )
            for (victim_id, kind), files in sorted(groups.items())
            if len(files) > 1
        ],
        [one for one, ready in zip(accepted.superseded, due, strict=True) if ready],
        [one for one, ready in zip(accepted.superseded, due, strict=True) if not ready],
        grace,
    )


def compact(
    store: Store,
    *,
    grace: float = GRACE,
    limits: Limits = Limits(),
    progress: Callable[[str], None] = lambda done: None,
) -> Compacted:
    """Merge small shards, and remove those that were merged at least `grace` seconds ago.

    `progress` hears how far it is. StoreError where the folder cannot be read or written; what is done by
    then stays, and the same call goes on from there.
    """
    try:
        return _compact(store, grace, limits, progress)
    except OSError as error:
        raise StoreError(
            f"stopped: {redacted(str(error))}; nothing in {store.shown} is lost, and the same command goes "
            "on from there"
        ) from error


def _compact(store: Store, grace: float, limits: Limits, progress: Callable[[str], None]) -> Compacted:
    done = Compacted()
    accepted = store.accepted_shards()
    partly = _partly(accepted)
    groups = plan_compaction(accepted, grace=grace, limits=limits).groups
    total = sum(len(group.files) for group in groups)
    for group in groups:
        generation = 1 + max(found.generation for found in group.files)
        for merger in _mergers(store, group, limits, partly, done.left):
            data, name = merger.finish(generation), layout.new_merged(group.victim_id)
            try:
                verify(name, pa.BufferReader(data))
            except DamagedError as error:  # memory, or a library, that cannot be relied on
                done.left += [
                    SetAside(found.file, f"it could not be merged: {error}") for found in group.files
                ]
                continue
            store.shards.publish(name, memoryview(data))
            done.into.append((name, data.size))
        done.merged += len(group.files)
        done.merged_bytes += sum(found.size for found in group.files)
        progress(f"merged {done.merged:,} of {total:,} files")
    accepted = store.accepted_shards()
    plan = plan_compaction(accepted, grace=grace, limits=limits)
    _remove(store, plan.removable, done, progress)
    done.waiting = len(plan.waiting)
    done.waiting_bytes = sum(one.found.size for one in plan.waiting)
    if done.merged or done.removed:
        store.index.save(store.accepted_shards().found)
    return done


def _remove(
    store: Store,
    superseded: Sequence[Superseded],
    done: Compacted,
    progress: Callable[[str], None],
) -> None:
    """Remove what is whole in other files; those are read back first."""
    whole: dict[str, dict[str, ShardInfo]] = {}
    if superseded:
        progress(f"removing {len(superseded):,} files")
    for name in sorted({name for one in superseded for name in one.by}):
        try:
            with store.shards.filesystem.open_input_file(store.shards.join(name)) as source:
                whole[name] = {shard.name: shard for shard in verify(name, source).members}
        except FileNotFoundError:
            continue  # merged on by another: the next listing knows where
        except DamagedError as error:
            done.left.append(SetAside(name, str(error)))
    files = []
    for one in superseded:
        if differing := [shard.name for shard in one.found.shards if not _is_in(shard, one.by, whole)]:
            reason = f"{differing[0]} is not as it is in shards/{one.by[0]}, so both stay"
            done.left.append(SetAside(one.found.file, reason))
        else:
            files.append(one.found)
    remove(store.folder, [found.file for found in files], {"merged_into": sorted(whole)})
    done.removed += len(files)
    done.removed_bytes += sum(found.size for found in files)


def _is_in(shard: ShardInfo, files: Sequence[str], whole: dict[str, dict[str, ShardInfo]]) -> bool:
    """Whether one of the files, found whole, has this very shard. Copies of a folder may have other times."""
    there = (whole[name][shard.name] for name in files if shard.name in whole.get(name, ()))
    return any(_said(shard) == _said(one) for one in there)


def _said(shard: ShardInfo) -> ShardInfo:
    return replace(shard, file="", offset=0, mtime_ns=0)


def _idle(accepted: Accepted) -> set[str]:
    """The shards that do not count."""
    return {one.name for one in accepted.twice} | {one.name for one in accepted.set_aside}


def _partly(accepted: Accepted) -> set[str]:
    """Those that do not count as a whole: they get row groups of their own, so that those of others can be
    read as they are."""
    pieces = (piece for pieces in accepted.pieces().values() for piece in pieces)
    return _idle(accepted) | {info.name for info, ranges in pieces if ranges is not None}


def _mergers(
    store: Store, group: Group, limits: Limits, partly: set[str], left: list[SetAside]
) -> Iterator[Merger]:
    """The rows of a group as new files, none of which is made of a single one."""
    merger, of = Merger(group.kind), set()
    for members in _row_groups(_members(store, group, left), partly):
        merger.add(members)
        of |= {member.info.path for member in members}
        if merger.size >= limits.bytes or merger.rows >= limits.rows or len(merger) >= limits.shards:
            yield merger
            merger, of = Merger(group.kind), set()
    if len(of) > 1:
        yield merger


def _row_groups(members: Iterator[Member], partly: set[str]) -> Iterator[list[Member]]:
    """Shards that make a row group together: of one attack, unless they have few rows."""
    found: list[Member] = []
    rows = size = 0
    for member in members:
        info = member.info
        if found:
            last = found[-1].info
            if (
                (info.name in partly) != (last.name in partly)
                or (info.attack_id != last.attack_id and rows >= _LEAST_ROWS)
                or rows + info.rows > _GROUP_ROWS
                or size + info.size > _GROUP_BYTES
            ):
                yield found
                found, rows, size = [], 0, 0
        found.append(member)
        rows, size = rows + info.rows, size + info.size
    if found:
        yield found


def _members(store: Store, group: Group, left: list[SetAside]) -> Iterator[Member]:
    """The shards of a group, read; what cannot be is left where it is."""
    damaged: set[str] = set()
    merged: dict[str, Stored] = {}

    def fetch(info: ShardInfo) -> bytes | OSError | None:
        if info.file:
            return None
        try:
            return store.shards.read(info.name)
        except OSError as error:
            return error

    with ExitStack() as stack, ThreadPoolExecutor(READERS) as pool:
        for some in _batches(group.shards):
            for info, data in zip(some, pool.map(fetch, some), strict=True):
                if info.path in damaged:
                    continue
                try:
                    if isinstance(data, OSError):
                        raise data
                    if data is not None:
                        yield _alone(info, data)
                        continue
                    if info.file not in merged:
                        path = store.shards.join(info.file)
                        source = stack.enter_context(store.shards.filesystem.open_input_file(path))
                        merged[info.file] = Stored(info.file, source)
                    yield merged[info.file].member(info.name)
                except FileNotFoundError:
                    damaged.add(info.path)  # merged by another meanwhile
                except (InvalidShardError, DamagedError, *UNREADABLE) as error:
                    damaged.add(info.path)
                    left.append(SetAside(info.path, str(error)))


def _alone(info: ShardInfo, data: bytes) -> Member:
    """A shard from the bytes of its file."""
    parquet = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    if shard_of(parquet, name=info.name, size=info.size, mtime_ns=info.mtime_ns) != info:
        raise InvalidShardError("its footer is not what it was when it was listed")
    footer = json.loads(parquet.schema_arrow.metadata[FOOTER_KEY])
    return Member(info, footer, widened(parquet.read(use_threads=False), SCHEMAS[info.kind]))


def _batches(shards: Sequence[ShardInfo]) -> Iterator[list[ShardInfo]]:
    """What is read at once."""
    some: list[ShardInfo] = []
    size = 0
    for shard in shards:
        some.append(shard)
        size += shard.size
        if len(some) == _BATCH or size >= _GROUP_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
