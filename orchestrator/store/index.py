"""A cache of shard footers: immutable segments in `index/`, which can be deleted at any time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from workers.shards import ShardInfo
from workers.storage import Folder

_SCHEMA = pa.schema(
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
    ]
)


class ShardIndex:
    """What footers said when they were last read. Never trusted without the file's size and time."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def load(self) -> dict[str, ShardInfo]:
        known: dict[str, ShardInfo] = {}
        for name in self._segments():
            try:
                data = self.folder.read(name)
                table = pq.read_table(pa.BufferReader(data))
            except (OSError, pa.ArrowException):
                continue  # deleted meanwhile, or damaged: the footers still know
            if not table.schema.equals(_SCHEMA):  # another version's, or not ours
                continue
            for row in table.to_pylist():
                known[row["name"]] = ShardInfo(**{**row, "cells": tuple(row["cells"])})
        return known

    def save(self, infos: Sequence[ShardInfo]) -> None:
        """Write one segment with all of `infos`, then delete the segments it replaces."""
        old = self._segments()
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([asdict(info) for info in infos], schema=_SCHEMA), sink)
        self.folder.publish(f"{uuid.uuid4().hex}.parquet", memoryview(sink.getvalue()))
        for name in old:
            try:
                self.folder.delete(name)
            except OSError:  # another driver tidied up at the same time
                continue

    def _segments(self) -> list[str]:
        files = self.folder.files()
        return sorted(self.folder.relative(file.path) for file in files if file.path.endswith(".parquet"))
