"""A cache of shard footers, in `index/`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any

import pyarrow as pa

from orchestrator.store.found import Found
from orchestrator.store.segments import Segments
from workers.shards import ShardInfo, is_possible
from workers.storage import Folder

_SHARD = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("victim_id", pa.string()),
        ("attack_id", pa.string()),
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("cells", pa.list_(pa.string())),
        ("weights", pa.string()),
        ("published_at", pa.string()),
        ("seconds", pa.float64()),
        ("device", pa.string()),
        ("code", pa.string()),
        ("versions", pa.string()),
        ("kind", pa.string()),
        ("source_id", pa.string()),
        ("source_weights", pa.string()),
        ("setup", pa.float64()),
        ("visible", pa.float64()),
        ("cpus", pa.int32()),
        ("gpus", pa.float64()),
        ("attacked", pa.int32()),
        ("file", pa.string()),
        ("offset", pa.int64()),
    ]
)
"""The fields of `ShardInfo`, in their order."""

_OF = pa.schema(
    [("of", pa.string()), ("of_size", pa.int64()), ("of_mtime_ns", pa.int64()), ("generation", pa.int32())]
)
_SCHEMA = pa.schema([*_OF, *_SHARD])
"""One row for each shard in each file; all that a file holds stand one below the other."""


class ShardIndex:
    """What footers said when they were last read. Never trusted without the file's size and time."""

    def __init__(self, folder: Folder) -> None:
        self._segments = Segments(folder, _SCHEMA, optional=("attacked",))

    def load(self) -> dict[str, Found]:
        """By file."""
        return {found.file: found for table in self._segments.tables() for found in _files(table)}

    def save(self, found: Sequence[Found]) -> None:
        """Keep these, and nothing else."""
        rows = [
            (one.file, one.size, one.mtime_ns, one.generation, shard) for one in found for shard in one.shards
        ]
        *of, shards = zip(*rows, strict=True) if rows else ((),) * 5
        columns = [*of, *(list(map(attrgetter(name), shards)) for name in _SHARD.names)]
        arrays = [pa.array(values, kind) for values, kind in zip(columns, _SCHEMA.types, strict=True)]
        self._segments.replace(pa.table(arrays, schema=_SCHEMA))


assert [field.name for field in fields(ShardInfo)] == _SHARD.names


def _files(table: pa.Table) -> Iterator[Found]:
    of = list(zip(*(_plain(table[name]) for name in _OF.names), strict=True))
    shards = list(map(ShardInfo, *(_plain(table[name]) for name in _SHARD.names)))
    first = 0
    for one, same in groupby(of):
        file, size, mtime_ns, generation = one
        stop = first + sum(1 for _ in same)
        if all(map(is_possible, shards[first:stop])):
            yield Found(file, size, mtime_ns, tuple(shards[first:stop]), generation)
        first = stop


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """As Python's values, each text and each list once: most columns have few."""
    if pa.types.is_list(column.type):
        array = column.combine_chunks()
        ends = array.offsets.to_pylist()
        values = _plain(pa.chunked_array([array.values], pa.string()))
        return [tuple(values[start:stop]) for start, stop in pairwise(ends)]
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    coded = column.combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    return [texts[i] for i in coded.indices.to_pylist()]
