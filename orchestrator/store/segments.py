"""A cache in a folder: immutable Parquet segments of one schema, which can be deleted at any time."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from workers.storage import Folder

_SEGMENT = re.compile(r"[0-9a-f]{32}\.parquet")


class Segments:
    """What was kept of one kind. Two drivers may keep at the same time: what one loses is only read again."""

    def __init__(self, folder: Folder, schema: pa.Schema, *, optional: Collection[str] = ()) -> None:
        """`optional`: columns that may be null."""
        self._folder = folder
        self._schema = schema
        self._needed = [name for name in schema.names if name not in optional]

    def tables(self) -> Iterator[pa.Table]:
        """Every segment; damaged ones, and those of another version, are passed over."""
        for name in self._names():
            try:
                data = pa.BufferReader(self._folder.read(name))
                table = pq.read_table(data, page_checksum_verification=True)
                table.validate(full=True)
            except (OSError, ValueError, pa.ArrowException):
                continue
            if table.schema.equals(self._schema) and not any(table[name].null_count for name in self._needed):
                yield table

    def replace(self, table: pa.Table) -> None:
        """Write one segment with all of it, then delete those that it replaces; nothing where the folder is a
        link, which whoever sent this output folder may have set on files of ours."""
        if self._folder.is_link():
            return
        old = self._names()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        self._folder.publish(f"{uuid.uuid4().hex}.parquet", memoryview(sink.getvalue()))
        for name in old:
            with suppress(OSError):  # another driver tidied up at the same time
                self._folder.delete(name)

    def _names(self) -> list[str]:
        names = (file.base_name for file in self._folder.files())
        return sorted(name for name in names if _SEGMENT.fullmatch(name))
