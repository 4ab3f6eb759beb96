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
from orchestrator.results.measured import ATTACKS, MEASURED, measure, needed_columns, summarise
from orchestrator.results.schemas import Measured
from orchestrator.results.witnesses import IMAGE_COLUMNS, with_misplaced
from orchestrator.store.accepted import Accepted
from orchestrator.store.rows import Piece, Rows
from orchestrator.store.segments import Segments
from workers.storage import Folder

# What was kept must not outlive a change of how it is measured.
_CODE = hashlib.sha256(
    b"".join(Path(str(module.__file__)).read_bytes() for module in (measuring, witnessing))
).hexdigest()
_SCHEMA = pa.schema([("key", pa.string()), *ATTACKS, ("cells", pa.list_(pa.struct(list(MEASURED))))])
"""One row for each attack on each victim."""


class _Group(NamedTuple):
    """The wanted cells of one attack on one victim, and the shards that hold them."""

    victim_id: str
    attack_id: str
    norm: str
    wanted: dict[str, int]  # cell id -> examples
    pieces: Sequence[Piece]

    @property
    def key(self) -> str:
        """Tells what went in: the same shards, or parts of them, for the same cells."""
        # As in the index: a file that is not as it was is another, though its name is never used twice.
        names = sorted(
            f"{piece.info.name} {piece.info.size} {piece.info.mtime_ns} {piece.ranges}"
            for piece in self.pieces
        )
        text = f"{_CODE} {self.norm} {sorted(self.wanted.items())} {names}"
        return hashlib.sha256(text.encode()).hexdigest()


def measured_results(accepted: Accepted, wanted: pa.Table, kept: Folder) -> Measured:
    """What the wanted cells (`results.schemas.WANTED`) come to; `kept` is a folder for what was measured
    before, which can be deleted at any time."""
    groups = {group.key: group for group in _groups(accepted, wanted)}
    segments = Segments(kept, _SCHEMA, optional=("targeted", "minimum_norm"))
    known = _load(segments)
    whole = known.filter(pc.is_in(known["key"], pa.array(list(groups), pa.string())))
    if missing := groups.keys() - set(whole["key"].to_pylist()):
        rows = accepted.rows  # victim by victim: what is merged lies together
        fresh = [_measure(rows, key, group) for key, group in groups.items() if key in missing]
        whole = pa.concat_tables([whole, *fresh])
        with suppress(OSError):  # a folder that may only be read
            segments.replace(whole)
    cells = pa.chunked_array([chunk.flatten() for chunk in whole["cells"].chunks], pa.struct(list(MEASURED)))
    return Measured(
        cells=pa.Table.from_arrays(cells.flatten(), schema=MEASURED), attacks=whole.select(ATTACKS.names)
    )


def _groups(accepted: Accepted, wanted: pa.Table) -> list[_Group]:
    pieces = accepted.pieces()
    groups: dict[tuple[str, str], _Group] = {}
    columns = ("victim_id", "attack_id", "norm", "cell_id", "examples")
    for victim, attack, norm, cell, examples in zip(
        *(wanted[name].to_pylist() for name in columns), strict=True
    ):
        if found := pieces.get((victim, attack)):
            group = groups.setdefault((victim, attack), _Group(victim, attack, norm, {}, found))
            group.wanted[cell] = examples
    return list(groups.values())


def _measure(stored: Rows, key: str, group: _Group) -> pa.Table:
    columns = list(dict.fromkeys((*needed_columns(group.norm), *IMAGE_COLUMNS)))
    # Images are let go table by table: with `keep: all` they are most of a folder.
    tables = stored.tables(group.pieces, columns)
    rows = pa.concat_tables([with_misplaced(table, group.norm, of) for table, of in tables])
    cells = measure(rows, group.wanted, group.norm)
    arrays = {
        "key": pa.array([key]),
        "victim_id": pa.array([group.victim_id]),
        "attack_id": pa.array([group.attack_id]),
        **{name: pa.array([value]) for name, value in summarise(rows, group.wanted, group.norm).items()},
        "cells": pa.ListArray.from_arrays([0, cells.num_rows], cells.to_struct_array().combine_chunks()),
    }
    return pa.table({name: arrays[name].cast(_SCHEMA.field(name).type) for name in _SCHEMA.names})


def _load(kept: Segments) -> pa.Table:
    """Everything that was kept, once, whichever segments have it."""
    tables = [_SCHEMA.empty_table()]
    seen: set[str] = set()
    for table in kept.tables():
        if not _possible(table):
            continue
        keys = set(table["key"].to_pylist())
        twice = pa.array(sorted(keys & seen), pa.string())
        tables.append(table.filter(pc.invert(pc.is_in(table["key"], twice))))
        seen |= keys
    return pa.concat_tables(tables)


def _possible(table: pa.Table) -> bool:
    """Whether counts of cells may be what they say, as far as they tell by themselves."""
    cells = pa.chunked_array([chunk.flatten() for chunk in table["cells"].chunks], pa.struct(list(MEASURED)))
    if cells.null_count:
        return False
    counts = pa.Table.from_arrays(cells.flatten(), schema=MEASURED).select(("cell_id", *_FALLING))
    if any(column.null_count for column in counts.columns):
        return False
    pairs = zip(_FALLING, (*_FALLING[1:], None), strict=True)
    return all(
        pc.all(pc.greater_equal(counts[more], counts[fewer] if fewer else 0), min_count=0).as_py()
        for more, fewer in pairs
    )


_FALLING = ("n", "correct", "robust")
"""Counts of examples, none more than the one before it."""
