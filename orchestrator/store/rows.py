"""The rows of shards that count, wherever they lie: in files of their own, or merged with others in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.errors import StoreError
from orchestrator.intervals import Interval
from workers.shards import CHECKED, SCHEMAS, UNREADABLE, ShardInfo, fragment
from workers.storage import READERS, Folder, first_line, redacted
from workers.unit import Kind

_OPEN = 4  # merged files that are kept in mind, each with a row group


class Piece(NamedTuple):
    """A shard that counts: whole, or only those positions of its cells."""

    info: ShardInfo
    ranges: Mapping[str, Sequence[Interval]] | None = None


@dataclass
class Rows:
    """Rows of one folder's shards."""

    shards: Folder
    _open: dict[str, _File] = field(default_factory=dict)

    def tables(
        self, pieces: Sequence[Piece], columns: Sequence[str]
    ) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Those columns of the rows that count, piece by piece, null where an earlier version had no such
        column; and of each row which piece it is of. Few tables where they lie together."""
        place = 0
        alone = self._all_alone(pieces, columns)
        while place < len(pieces):
            info = pieces[place].info
            if info.file:
                group, first, end = self._file(info.file).group(info.offset)
                stop = place + 1
                reach = info.offset + info.rows
                while stop < len(pieces) and _follows(pieces[stop].info, info.file, reach, end):
                    reach += pieces[stop].info.rows
                    stop += 1
                table = self._file(info.file).read(group, columns)
                table = table.slice(info.offset - first, reach - info.offset)
            else:
                stop = place + 1
                table = next(alone)
            counts = [piece.info.rows for piece in pieces[place:stop]]
            of = np.repeat(np.arange(place, stop), counts)
            if any(piece.ranges is not None for piece in pieces[place:stop]):
                keep = _kept(pieces[place:stop], self._named(pieces[place:stop], columns, table))
                table, of = table.filter(pa.array(keep)), of[keep]
            yield table, of
            place = stop

    def dataset(self, pieces: Sequence[Piece], kind: Kind, whole: Mapping[str, int]) -> pads.Dataset:
        """All rows of the pieces of a kind, read lazily but for those that lie in one row group with rows
        that do not count. `whole`: how many shards each merged file holds."""
        form = CHECKED
        paths, fragments, tables = [], [], []
        merged: dict[str, list[Piece]] = {}
        for piece in pieces:
            if piece.info.kind != kind:
                continue
            if piece.info.file:
                merged.setdefault(piece.info.file, []).append(piece)
            elif piece.ranges is None:
                paths.append(self.shards.join(piece.info.name))
            else:
                tables += [table for table, _ in self.tables([piece], SCHEMAS[kind].names)]
        for file, here in merged.items():
            if len(here) == whole.get(file) and all(piece.ranges is None for piece in here):
                paths.append(self.shards.join(file))
                continue
            here.sort(key=lambda piece: piece.info.offset)
            groups: list[int] = []
            for number, of_group, count in self._file(file).groups(here):
                full = sum(piece.info.rows for piece in of_group if piece.ranges is None) == count
                if full:
                    groups.append(number)
                else:
                    tables += [table for table, _ in self.tables(of_group, SCHEMAS[kind].names)]
            if groups:
                fragments.append(
                    form.make_fragment(self.shards.join(file), self.shards.filesystem, row_groups=groups)
                )
        files = pads.FileSystemDataset.from_paths(
            paths, schema=SCHEMAS[kind], format=form, filesystem=self.shards.filesystem
        )
        parts: list[pads.Dataset] = [files]
        if fragments:
            parts.append(
                pads.FileSystemDataset(fragments, SCHEMAS[kind], form, filesystem=self.shards.filesystem)
            )
        if tables:
            parts.append(pads.dataset(pa.concat_tables(tables)))
        return parts[0] if len(parts) == 1 else pads.dataset(parts)

    def _named(self, pieces: Sequence[Piece], columns: Sequence[str], table: pa.Table) -> pa.Table:
        """The cells and positions of a table's rows, which may not be among its columns."""
        wanted = ("cell_id", "position")
        if set(wanted) <= set(columns):
            return table
        whole = [Piece(piece.info) for piece in pieces]
        return pa.concat_tables([found for found, _ in self.tables(whole, wanted)])

    def _file(self, name: str) -> _File:
        if name not in self._open:
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            self._open[name] = _File(self.shards, name)
        return self._open[name]

    def _all_alone(self, pieces: Sequence[Piece], columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of those that are files by themselves."""
        infos = [piece.info for piece in pieces if not piece.info.file]
        if self.shards.is_local or len(infos) < 2:
            yield from (self._alone(info, columns) for info in infos)
            return
        with ThreadPoolExecutor(READERS) as pool:  # it is the way there and back that takes time
            for first in range(0, len(infos), READERS):
                yield from pool.map(partial(self._alone, columns=columns), infos[first : first + READERS])

    def _alone(self, info: ShardInfo, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([SCHEMAS[info.kind].field(name) for name in columns])
        if not self.shards.is_local:
            # As its size is known, a request less. What is wrong with it, or that it is gone, is said below.
            with suppress(pa.ArrowException, OSError):
                shard = fragment(self.shards, info.name, info.size)
                here = [name for name in columns if name in shard.physical_schema.names]
                return widened(shard.to_table(columns=here, use_threads=False), schema)
        with (
            _reading(info.name),
            self.shards.filesystem.open_input_file(self.shards.join(info.name)) as source,
        ):
            parquet = pq.ParquetFile(source, page_checksum_verification=True)
            known = set(parquet.schema_arrow.names)
            here = [name for name in columns if name in known]
            table = parquet.read(here, use_threads=False)
        return widened(table, schema)


def widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema: null where an earlier version had no such column."""
    for name in set(schema.names) - set(table.column_names):
        table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table.select(schema.names).replace_schema_metadata(None)


class _File:
    """A merged file that is read row group by row group, mostly one after the other."""

    def __init__(self, shards: Folder, name: str) -> None:
        with _reading(name), shards.filesystem.open_input_file(shards.join(name)) as source:
            self._metadata = pq.read_metadata(source)
        counts = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._ends = np.cumsum(counts)
        self._shards, self._name = shards, name
        self._last: tuple[int, tuple[str, ...], pa.Table] | None = None

    def group(self, row: int) -> tuple[int, int, int]:
        """The row group that a row is in, its first row, and the one behind its last."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return number, int(self._ends[number - 1]) if number else 0, int(self._ends[number])

    def groups(self, pieces: Sequence[Piece]) -> Iterator[tuple[int, list[Piece], int]]:
        """The row groups that pieces, in their order there, are in, with these and the number of its rows."""
        found: dict[int, list[Piece]] = {}
        for piece in pieces:
            found.setdefault(self.group(piece.info.offset)[0], []).append(piece)
        for number, here in found.items():
            yield number, here, self._metadata.row_group(number).num_rows

    def read(self, number: int, columns: Sequence[str]) -> pa.Table:
        """A row group. The last one is kept: attacks with few rows share one."""
        wanted = tuple(columns)
        if self._last is None or self._last[:2] != (number, wanted):
            with (
                _reading(self._name),
                self._shards.filesystem.open_input_file(self._shards.join(self._name)) as source,
            ):
                parquet = pq.ParquetFile(source, metadata=self._metadata, page_checksum_verification=True)
                table = parquet.read_row_group(number, list(wanted), use_threads=False)
            self._last = number, wanted, table.replace_schema_metadata(None).select(wanted)
        return self._last[2]


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """StoreError for rows that cannot be read: a disk has changed them since they were published."""
    try:
        yield
    except FileNotFoundError:  # it was merged into another meanwhile, and who asked looks again
        raise
    except UNREADABLE as error:
        raise StoreError(
            f"cannot read the rows of shards/{file}: {redacted(first_line(error))}; if the file is damaged, "
            "delete it, and the same command computes its rows again"
        ) from None


def _follows(info: ShardInfo, file: str, reach: int, end: int) -> bool:
    """Whether a shard's rows begin where those before them end, in the same row group."""
    return info.file == file and info.offset == reach and reach < end


def _kept(pieces: Sequence[Piece], named: pa.Table) -> NDArray[np.bool_]:
    """Which rows count."""
    kept = []
    offset = 0
    for info, ranges in pieces:
        rows = named.slice(offset, info.rows)
        offset += info.rows
        if ranges is None:
            kept.append(np.ones(info.rows, bool))
            continue
        keep = pa.scalar(False)
        cell, position = rows["cell_id"], rows["position"]
        for cell_id, intervals in ranges.items():
            for start, stop in intervals:
                inside = pc.and_(pc.greater_equal(position, start), pc.less(position, stop))
                keep = pc.or_(keep, pc.and_(pc.equal(cell, cell_id), inside))
        kept.append(
            keep.to_numpy(zero_copy_only=False) if hasattr(keep, "to_numpy") else np.zeros(info.rows, bool)
        )
    return np.concatenate(kept)
