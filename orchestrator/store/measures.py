"""What cells measured, kept: a merge reads the rows of those attacks alone that have something new."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.results import measured as measuring
from orchestrator.results.measured import MEASURED, measure, needed_columns
from orchestrator.store.accepted import Accepted, Piece
from workers.storage import Folder

# What was kept must not outlive a change of how it is measured.
_CODE = hashlib.sha256(Path(measuring.__file__).read_bytes()).hexdigest()
_SCHEMA = pa.schema([("key", pa.string()), *MEASURED])


class _Group(NamedTuple):
    """The wanted cells of one attack on one victim, and the shards that hold them."""

    norm: str
    wanted: dict[str, int]  # cell id -> examples
    pieces: Sequence[Piece]

    @property
    def key(self) -> str:
        """Tells what went in: the same shards, or parts of them, for the same cells."""
        names = sorted(f"{piece.info.name} {piece.ranges}" for piece in self.pieces)
        text = f"{_CODE} {self.norm} {sorted(self.wanted.items())} {names}"
        return hashlib.sha256(text.encode()).hexdigest()


def measured_cells(accepted: Accepted, wanted: pa.Table, kept: Folder) -> pa.Table:
    """`MEASURED` of the wanted cells (`results.schemas.WANTED`); `kept` is a folder for what was measured
    before, which can be deleted at any time."""
    groups = {group.key: group for group in _groups(accepted, wanted)}
    known = _load(kept)
    reused = known.filter(pc.is_in(known["key"], pa.array(list(groups), pa.string())))
    missing = groups.keys() - set(reused["key"].to_pylist())
    if not missing:
        return reused.drop_columns("key")
    fresh = [_measure(accepted, key, groups[key]) for key in sorted(missing)]
    whole = pa.concat_tables([reused, *fresh])
    with suppress(OSError):  # a folder that may only be read
        _save(kept, whole)
    return whole.drop_columns("key")


def _groups(accepted: Accepted, wanted: pa.Table) -> list[_Group]:
    pieces = accepted.pieces()
    groups: dict[tuple[str, str], _Group] = {}
    columns = ("victim_id", "attack_id", "norm", "cell_id", "examples")
    for victim, attack, norm, cell, examples in zip(
        *(wanted[name].to_pylist() for name in columns), strict=True
    ):
        if found := pieces.get((victim, attack)):
            groups.setdefault((victim, attack), _Group(norm, {}, found)).wanted[cell] = examples
    return list(groups.values())


def _measure(accepted: Accepted, key: str, group: _Group) -> pa.Table:
    columns = needed_columns(group.norm)
    rows = pa.concat_tables([accepted.read(piece, columns) for piece in group.pieces])
    table = measure(rows, group.wanted, group.norm)
    return table.add_column(0, "key", pa.repeat(pa.scalar(key), table.num_rows)).cast(_SCHEMA)


def _segments(kept: Folder) -> list[str]:
    return sorted(file.base_name for file in kept.files() if file.base_name.endswith(".parquet"))


def _load(kept: Folder) -> pa.Table:
    """Everything that was kept; damaged segments, and those of another version, are passed over."""
    tables = [_SCHEMA.empty_table()]
    seen: set[str] = set()
    for name in _segments(kept):
        try:
            table = pq.read_table(pa.BufferReader(kept.read(name)))
        except (OSError, pa.ArrowException):
            continue
        if not table.schema.equals(_SCHEMA):
            continue
        keys = set(table["key"].to_pylist())
        twice = pa.array(sorted(keys & seen), pa.string())
        tables.append(table.filter(pc.invert(pc.is_in(table["key"], twice))))
        seen |= keys
    return pa.concat_tables(tables)


def _save(kept: Folder, table: pa.Table) -> None:
    """Write one segment with all of it, then delete those that it replaces."""
    old = _segments(kept)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    kept.publish(f"{uuid.uuid4().hex}.parquet", memoryview(sink.getvalue()))
    for name in old:
        with suppress(OSError):  # another driver tidied up at the same time
            kept.delete(name)
