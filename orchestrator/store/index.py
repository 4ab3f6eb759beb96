"""A cache of shard footers, in `index/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from orchestrator.store.segments import Segments
from workers.shards import ShardInfo, is_possible
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
        ("versions", pa.string()),
        ("kind", pa.string()),
        ("source_id", pa.string()),
        ("source_weights", pa.string()),
    ]
)


class ShardIndex:
    """What footers said when they were last read. Never trusted without the file's size and time."""

    def __init__(self, folder: Folder) -> None:
        self._segments = Segments(folder, _SCHEMA)

    def load(self) -> dict[str, ShardInfo]:
        found = {}
        for table in self._segments.tables():
            for row in table.to_pylist():
                info = ShardInfo(**{**row, "cells": tuple(row["cells"])})
                if is_possible(info):
                    found[info.name] = info
        return found

    def save(self, infos: Sequence[ShardInfo]) -> None:
        """Keep these, and nothing else."""
        self._segments.replace(pa.Table.from_pylist([asdict(info) for info in infos], schema=_SCHEMA))
