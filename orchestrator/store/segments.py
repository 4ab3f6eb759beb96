"""A cache in a folder: immutable Parquet segments of one schema, which can be deleted at any time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from workers.storage import Folder


class Segments:
    """What was kept of one kind. Two drivers may keep at the same time: what one loses is only read again."""

    def __init__(self, folder: Folder, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema

    def tables(self) -> Iterator[pa.Table]:
        """Every segment; damaged ones, and those of another version, are passed over."""
        for name in self._names():
            try:
                table = pq.read_table(pa.BufferReader(self._folder.read(name)))
            except (OSError, pa.ArrowException):
                continue
            if table.schema.equals(self._schema):
                yield table

    def replace(self, table: pa.Table) -> None:
        """Write one segment with all of it, then delete those that it replaces."""
        old = self._names()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self._folder.publish(f"{uuid.uuid4().hex}.parquet", memoryview(sink.getvalue()))
        for name in old:
            with suppress(OSError):  # another driver tidied up at the same time
                self._folder.delete(name)

    def _names(self) -> list[str]:
        return sorted(file.base_name for file in self._folder.files() if file.base_name.endswith(".parquet"))
