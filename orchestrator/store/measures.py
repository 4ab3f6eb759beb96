"""What cells measured, kept: a merge reads the rows of those attacks alone that have something new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results import measured as measuring
from orchestrator.results import witnesses as witnessing
from orchestrator.results.measured import MEASURED, measure, needed_columns
from orchestrator.results.witnesses import IMAGE_COLUMNS, with_misplaced
from orchestrator.store.accepted import Accepted, Piece
from orchestrator.store.segments import Segments
from workers.storage import Folder

# What was kept must not outlive a change of how it is measured.
_CODE = hashlib.sha256(
    b"".join(Path(module.__file__).read_bytes() for module in (measuring, witnessing))
).hexdigest()
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
    segments = Segments(kept, _SCHEMA)
    known = _load(segments)
    reused = known.filter(pc.is_in(known["key"], pa.array(list(groups), pa.string())))
    missing = groups.keys() - set(reused["key"].to_pylist())
    if not missing:
        return reused.drop_columns("key")
    fresh = [_measure(accepted, key, groups[key]) for key in sorted(missing)]
    whole = pa.concat_tables([reused, *fresh])
    with suppress(OSError):  # a folder that may only be read
        segments.replace(whole)
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
    columns = list(dict.fromkeys((*needed_columns(group.norm), *IMAGE_COLUMNS)))
    # Images are let go shard by shard: with `keep: all` they are most of a folder.
    pieces = (with_misplaced(accepted.read(piece, columns), group.norm) for piece in group.pieces)
    rows = pa.concat_tables(list(pieces))
    table = measure(rows, group.wanted, group.norm)
    return table.add_column(0, "key", pa.repeat(pa.scalar(key), table.num_rows)).cast(_SCHEMA)


def _load(kept: Segments) -> pa.Table:
    """Everything that was kept, once, whichever segments have it."""
    tables = [_SCHEMA.empty_table()]
    seen: set[str] = set()
    for table in kept.tables():
        keys = set(table["key"].to_pylist())
        twice = pa.array(sorted(keys & seen), pa.string())
        tables.append(table.filter(pc.invert(pc.is_in(table["key"], twice))))
        seen |= keys
    return pa.concat_tables(tables)
