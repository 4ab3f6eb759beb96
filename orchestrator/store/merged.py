"""The file that many shards are merged into: their rows, one shard's after the other's, and their footers.

To every reader it is those shards, under their own names: what each says of itself stays as it was, so that
nothing that follows from a shard (pins, overlaps, seconds, what cells came to) can change by merging. A row
group holds whole shards.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workers.recorded import as_count, as_json, as_size, as_text
from workers.shards import (
    DIMENSIONS,
    FOOTER_KEY,
    SCHEMAS,
    InvalidShardError,
    LaterShardError,
    ShardInfo,
    footer_info,
)
from workers.unit import Kind

MERGED_KEY = b"robustsweep-merged"
MERGED_VERSION = 1
_OWN = ("unit_id", "start", "stop", "published_at", "rows", "phases", "attacked")
"""What differs from shard to shard; all else in a footer is written once for those that share it."""

_MOST = 2**27  # bytes of a footer, unpacked: a file that says to hold more is not read


class Member(NamedTuple):
    """A shard to be merged: what its footer says, as read and as written, and its rows (`SCHEMAS`)."""

    info: ShardInfo
    footer: dict[str, Any]
    rows: pa.Table


class DamagedError(Exception):
    """A merged file whose rows are not what was merged; the message says where."""


class Merger:
    """Makes a merged file in memory, a row group at a time."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            SCHEMAS[kind],
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=DIMENSIONS.names,
            write_statistics=[*DIMENSIONS.names, "position"],
        )
        self._members: list[list[Any]] = []
        self._digests: list[str] = []
        self._shared: dict[str, int] = {}
        self.rows = 0

    def __len__(self) -> int:
        """How many shards are in it."""
        return len(self._members)

    @property
    def size(self) -> int:
        """Bytes, as yet."""
        return int(self._sink.tell())

    def add(self, members: Sequence[Member]) -> None:
        """Write some shards as one row group."""
        rows = pa.concat_tables([member.rows for member in members]).combine_chunks()
        if rows.num_rows != sum(member.info.rows for member in members):
            raise ValueError(f"{rows.num_rows} rows of {members[0].info.name} and others")
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._digests.append(digest(rows))
        for info, footer, table in members:
            shared = {name: value for name, value in footer.items() if name not in _OWN}
            own = {name: value for name, value in footer.items() if name in _OWN}
            place = self._shared.setdefault(json.dumps(shared, sort_keys=True), len(self._shared))
            self._members.append([info.name, info.size, info.mtime_ns, len(self._digests) - 1, place, own])
            self.rows += table.num_rows

    def finish(self, generation: int) -> pa.Buffer:
        """The whole file. `generation`: higher than that of every file that some of it was in before."""
        footer = {
            "version": MERGED_VERSION,
            "generation": generation,
            "kind": self._kind,
            "shared": [json.loads(text) for text in self._shared],
            "members": self._members,
            "digests": self._digests,
        }
        packed = base64.b64encode(zlib.compress(json.dumps(footer).encode(), 6))
        self._writer.add_key_value_metadata({MERGED_KEY: packed})
        self._writer.close()
        return self._sink.getvalue()


@dataclass(frozen=True, slots=True)
class Merged:
    """What the footer of a merged file says."""

    generation: int
    members: tuple[ShardInfo, ...]
    groups: tuple[int, ...]  # the row group of each
    footers: tuple[dict[str, Any], ...]
    digests: tuple[str, ...]


def read_merged(parquet: pq.ParquetFile, file: str) -> Merged | None:
    """What the footer of a merged file says, its shards in the order of their rows; None for another file.

    InvalidShardError where it lacks something, or does not agree with the rows.
    """
    metadata = parquet.metadata
    packed = (metadata.metadata or {}).get(MERGED_KEY)
    if packed is None or FOOTER_KEY in metadata.metadata:
        return None
    try:
        inflate = zlib.decompressobj()
        footer = as_json(inflate.decompress(base64.b64decode(packed), _MOST))
        if (version := footer["version"]) != MERGED_VERSION:
            raise LaterShardError(
                f"merged by a later robustsweep (version {version}; this one reads {MERGED_VERSION})"
            )
        members, groups, footers, offset = [], [], [], 0
        for name, size, mtime_ns, group, place, own in footer["members"]:
            each = {**footer["shared"][place], **own}
            info, _ = footer_info(each, name=as_text(name), size=as_size(size), mtime_ns=as_size(mtime_ns))
            if info.kind != footer["kind"]:
                raise ValueError(f"the kind of {name}")
            members.append(replace(info, file=file, offset=offset))
            groups.append(as_count(group))
            footers.append(each)
            offset += info.rows
        digests = tuple(map(as_text, footer["digests"]))
        generation = as_count(footer["generation"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, zlib.error) as error:
        raise InvalidShardError(f"its footer lacks or garbles {error}") from error
    victims = {info.victim_id for info in members}
    if len({info.name for info in members}) != len(members) or len(victims) != 1:
        raise InvalidShardError("its footer promises a shard twice, or shards of several victims")
    if not file.startswith(f"{members[0].victim_id}/"):
        raise InvalidShardError(f"it belongs to victim {members[0].victim_id}, not to this folder")
    if not parquet.schema_arrow.remove_metadata().equals(SCHEMAS[members[0].kind]):
        raise InvalidShardError("its columns are not those of a shard")
    rows = [0] * len(digests)
    for info, place in zip(members, groups, strict=True):
        if not 0 <= place < len(rows):
            raise InvalidShardError(f"{info.name} is in row group {place} of {len(rows)}")
        rows[place] += info.rows
    there = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if groups != sorted(groups) or rows != there:
        raise InvalidShardError(f"row groups of {there} rows, but its footer promises {rows}")
    return Merged(generation, tuple(members), tuple(groups), tuple(footers), digests)


class Stored:
    """The rows of a merged file, a row group at a time, each held against its hash. DamagedError.

    InvalidShardError for another file; OSError where it cannot be read.
    """

    def __init__(self, file: str, source: pa.NativeFile) -> None:
        self.file = file
        try:
            self._parquet = pq.ParquetFile(source, page_checksum_verification=True)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DamagedError(f"shards/{file}: {error}") from error
        merged = read_merged(self._parquet, file)
        if merged is None:
            raise InvalidShardError("it is no merged file")
        self.merged = merged
        self._first: dict[int, int] = {}  # the row before a row group's first
        for info, group in zip(merged.members, merged.groups, strict=True):
            self._first.setdefault(group, info.offset)
        self._places = {info.name: place for place, info in enumerate(merged.members)}
        self._last: tuple[int, pa.Table] | None = None

    def member(self, name: str) -> Member:
        """A shard of it."""
        place = self._places[name]
        return Member(self.merged.members[place], self.merged.footers[place], self.rows(place))

    def rows(self, place: int) -> pa.Table:
        """Those of the shard at a place of `merged.members`. The last row group that was read is kept."""
        info, group = self.merged.members[place], self.merged.groups[place]
        if self._last is None or self._last[0] != group:
            self._last = group, self._read(group)
        rows = self._last[1].slice(info.offset - self._first[group], info.rows)
        positions = pc.min_max(rows["position"]).as_py()
        inside = info.start <= positions["min"] and positions["max"] < info.stop
        cells = set(pc.unique(rows["cell_id"]).to_pylist())
        attacks = pc.unique(rows["attack_id"]).to_pylist()
        if not inside or not cells <= set(info.cells) or attacks != [info.attack_id]:
            raise DamagedError(f"shards/{self.file}: other rows stand where those of {info.name} should")
        return rows

    def _read(self, group: int) -> pa.Table:
        try:
            rows = self._parquet.read_row_group(group, use_threads=False).replace_schema_metadata(None)
        except pa.ArrowException as error:
            raise DamagedError(f"shards/{self.file}: {error}") from error
        except OSError as error:
            if "checksum" in str(error).lower() or "page" in str(error).lower():
                raise DamagedError(f"shards/{self.file}: {error}") from error
            raise
        if digest(rows) != self.merged.digests[group]:
            raise DamagedError(f"shards/{self.file}: the rows of row group {group} are not what was merged")
        return rows


def verify(file: str, source: pa.NativeFile) -> Merged:
    """Read all of a merged file: DamagedError unless every row is what was merged.

    Each row group must have the hash that its shards' rows had together when they were read, and each shard's
    rows must be of its cells and positions. OSError where it cannot be read.
    """
    try:
        stored = Stored(file, source)
    except InvalidShardError as error:
        raise DamagedError(f"shards/{file}: {error}") from error
    for place in range(len(stored.merged.members)):
        stored.rows(place)
    return stored.merged


def digest(rows: pa.Table) -> str:
    """SHA-256 of every value in every column, NaN and null among them, whatever they are kept in."""
    hashed = hashlib.sha256()
    for name in rows.column_names:
        hashed.update(f"{name}\0{rows.num_rows}\0".encode())
        for chunk in _values(rows[name].combine_chunks()):
            hashed.update(chunk)
    return hashed.hexdigest()


def _values(array: pa.Array | pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """The bytes that say what an array holds: which are null, how long each is, and the values."""
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    # By number: what the items of a list are called depends on who wrote it.
    yield f"{array.type.id} {len(array)} {array.null_count}\0".encode()
    if array.null_count == len(array):
        return
    if array.null_count:
        yield pc.is_valid(array).to_numpy(zero_copy_only=False).tobytes()
    kind = array.type
    if pa.types.is_list(kind):
        known = array.drop_null()
        yield known.value_lengths().to_numpy().tobytes()
        yield from _values(known.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        known = array.drop_null()
        yield pc.binary_length(known).to_numpy().tobytes()
        # One after the other, as their lengths tell them apart.
        joined = pc.binary_join(pa.ListArray.from_arrays([0, len(known)], known.cast(pa.binary())), b"")
        yield joined[0].as_buffer()
    else:
        yield array.drop_null().to_numpy(zero_copy_only=False).tobytes()
