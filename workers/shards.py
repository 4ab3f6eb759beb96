"""The Parquet file that one unit leaves behind: its schema, how it is published, how it is read.

Rows are example × epsilon. The file is immutable and its name is never reused; the footer says what the
rows are, so that a reader needs no other file to judge it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from workers import layout
from workers.code import this_code
from workers.recorded import as_count, as_json, as_list, as_seconds, as_text
from workers.storage import Folder, first_line, redacted
from workers.unit import AttackSpec, Evaluation, Kind, VictimSpec, recorded

SCHEMA_VERSION = 4
FOOTER_KEY = b"robustsweep"
_TAIL_BYTES = 2**16  # one request brings the whole of most shards

DIMENSIONS = pa.schema(
    [
        ("cell_id", pa.string()),
        ("victim_id", pa.string()),
        ("attack_id", pa.string()),
        ("model", pa.string()),
        ("model_options", pa.string()),
        ("dataset", pa.string()),
        ("defence", pa.string()),
        ("seed", pa.int32()),
        ("attack", pa.string()),
        ("attack_options", pa.string()),
        ("norm", pa.string()),
        ("adaptive", pa.bool_()),
        ("epsilon", pa.float64()),
    ]
)
"""The columns that name a cell; epsilon is on the [0, 1] scale."""

MEASURES = pa.schema(
    [
        ("position", pa.int32()),  # place in the evaluation order
        ("example_index", pa.int32()),  # row of the dataset's test split
        ("label", pa.int32()),
        ("clean_label", pa.int32()),
        ("clean_confidence", pa.float32()),
        ("clean_correct", pa.bool_()),
        ("adv_label", pa.int32()),  # null without success
        ("adv_confidence", pa.float32()),  # null without success
        ("success", pa.bool_()),
        ("success_uint8", pa.bool_()),
        # Distances from the clean image: null when not attacked, infinite when the attack failed.
        ("linf", pa.float32()),
        ("l2", pa.float32()),
        ("l0", pa.float32()),  # pixels (not channels) changed
        ("forward_calls", pa.int32()),
        ("gradient_calls", pa.int32()),
        # Perceptibility of the full-budget image; null where not measured.
        ("ssim", pa.float32()),
        ("psnr", pa.float32()),
        ("full_linf", pa.float32()),
        ("full_l2", pa.float32()),
        ("changed_share", pa.float32()),  # share of pixels changed by more than 1/510
        # A kept adversarial image, float32 in [0, 1], H×W×C, C order; null: none is kept (`measure.kept`).
        ("image", pa.binary()),
        ("image_shape", pa.list_(pa.int32())),
        # What was wrong where this example was attacked (`AttackResult.flags`); null where nothing was.
        ("flags", pa.list_(pa.string())),
        # Of a minimum-norm attack: the distance of the nearest adversarial image, in the attack's norm,
        # whatever the epsilons; infinite where there is none, null for other attacks and where not attacked.
        ("nearest", pa.float32()),
        ("target", pa.int32()),  # the class that a targeted attack aims at; null for any other
        ("member", pa.string()),  # which attack of a bundle broke the example; null without success
        # Of a randomised victim: the share of fresh draws in which the clean and the final image are answered
        # wrongly; null for any other.
        ("clean_wrong_draws", pa.float32()),
        ("wrong_draws", pa.float32()),
        # The clean image of a kept one, as the dataset stores it: uint8 in [0, 255] or float32 in [0, 1].
        ("clean_image", pa.binary()),
    ]
)

SCHEMA = pa.schema([*DIMENSIONS, *MEASURES])
"""What every shard holds. Columns may be added, nullable, with `SCHEMA_VERSION` raised; never changed."""

CERTIFICATES = pa.schema(
    [
        *DIMENSIONS,  # epsilon is 0: a certificate says how far it goes
        ("position", pa.int32()),
        ("example_index", pa.int32()),
        ("label", pa.int32()),
        ("answer", pa.int32()),  # of the smoothed victim; null where it abstains
        ("abstained", pa.bool_()),
        ("radius", pa.float64()),  # within which no image has another answer, L2; null where it abstains
        ("top_label", pa.int32()),  # answered most often when it was chosen; null: no answer was finite
        ("votes", pa.int32()),  # of the draws that bound how often: those that answered it
    ]
)
"""What a shard of certificates holds instead, a row an example."""

SCHEMAS: Mapping[Kind, pa.Schema] = {"attack": SCHEMA, "transfer": SCHEMA, "certificate": CERTIFICATES}

_ALWAYS: Mapping[Kind, tuple[str, ...]] = {
    **dict.fromkeys(("attack", "transfer"), ("clean_correct", "success", "success_uint8")),
    "certificate": ("abstained",),
}
"""Columns without which a row says nothing."""

_SINCE = {
    "flags": 2,
    **dict.fromkeys(("nearest", "target", "member", "clean_wrong_draws", "wrong_draws"), 3),
    "clean_image": 4,
}
"""The schema version that a column came with, where it was not the first: earlier shards lack it."""


SETUP = ("load", "train", "trace")
"""The phases of a unit that are not work on its examples: they do not grow with them."""


class InvalidShardError(Exception):
    """A file among the shards that is not one of ours, whole and readable; the message says why."""


class LaterShardError(InvalidShardError):
    """A file that a later robustsweep wrote: it may be whole."""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a shard's footer says: enough to plan, to pin and to resolve overlaps without its rows."""

    name: str  # below the output folder's `shards/`
    size: int
    mtime_ns: int
    victim_id: str
    attack_id: str
    start: int
    stop: int
    cells: tuple[str, ...]
    weights: str
    published_at: str
    seconds: float
    device: str
    code: str  # hash of the source that made it; "" where it does not say
    versions: str  # of the libraries that it was made with: "keras 3.15, …"; "" where it does not say
    kind: Kind = "attack"
    source_id: str = ""  # of a transfer: the victim that its images were made against, and its weights
    source_weights: str = ""
    setup: float = 0.0  # of the seconds: to load or train the victim, and to trace its functions
    visible: float = 0.0  # of the seconds: to measure visibility, which only the first positions have
    cpus: int = 1  # that the worker had
    gpus: float = 0.0
    attacked: int | None = None  # how many examples, where it was not all of them
    # The file that has its rows since it was merged with others, and how many rows are before its own there;
    # "" where it is a file by itself.
    file: str = ""
    offset: int = 0

    @property
    def path(self) -> str:
        """The file that its rows are read from, below the output folder's `shards/`."""
        return self.file or self.name

    @property
    def rows(self) -> int:
        return (self.stop - self.start) * len(self.cells)

    @property
    def on(self) -> str:
        """The device, with its kind."""
        return device_text(self.device, self.gpus)

    @property
    def devices(self) -> float:
        """How many of its device the worker had."""
        return self.gpus or float(self.cpus)


def device_text(device: str, gpus: float) -> str:
    """A device with its kind, as everything that counts hours calls it: "AMD EPYC (CPU)"."""
    return f"{device or 'unknown'} ({'GPU' if gpus else 'CPU'})"


def dimensions(victim: VictimSpec, attack: AttackSpec, cell_id: str, epsilon: float) -> dict[str, Any]:
    """The values of the `DIMENSIONS` columns for one cell."""
    return {
        "cell_id": cell_id,
        "victim_id": victim.victim_id,
        "attack_id": attack.attack_id,
        "model": victim.model.name,
        "model_options": victim.model.shown,
        "dataset": victim.dataset.name,
        "defence": victim.defence.label,
        "seed": victim.seed,
        "attack": attack.name,
        "attack_options": attack.shown,
        "norm": attack.norm,
        "adaptive": attack.adaptive,
        "epsilon": epsilon,
    }


def publish_shard(
    shards: Folder,
    unit: Evaluation,
    rows: pa.Table,
    *,
    weights: str,
    phases: Mapping[str, float],
    provenance: Mapping[str, Any],
    source_weights: str = "",
) -> str:
    """Publish a unit's rows as one file and return its name below `shards`.

    `rows` must have exactly the schema of their kind and one row for each of the unit's examples × cells;
    raises ValueError otherwise, so that no reader ever meets a shard that says one thing and holds another.
    `provenance` has at least `device`. `source_weights` are those of the victim that the attack's images
    were made against, where it is another.
    """
    attack = unit.attack
    if rows.num_rows != unit.rows:
        raise ValueError(f"unit {unit.unit_id}: {rows.num_rows} rows, expected {unit.rows}")
    if not rows.schema.equals(SCHEMAS[attack.kind]):
        raise ValueError(f"unit {unit.unit_id}: the rows' schema is not the shard schema")
    footer = {
        "schema_version": SCHEMA_VERSION,
        "unit_id": unit.unit_id,
        "victim_id": unit.victim.victim_id,
        "attack_id": attack.attack_id,
        "kind": attack.kind,
        **(
            {"source_id": attack.made_against.victim_id, "source_weights": source_weights}
            if attack.made_against
            else {}
        ),
        "start": unit.start,
        "stop": unit.stop,
        "cells": [cell_id for cell_id, _ in unit.cells],
        "weights": weights,
        "published_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "rows": unit.rows,
        # How many examples were to be attacked, where it was not all of them; no success among the others
        # says anything.
        **({} if unit.attacked is None else {"attacked": len(unit.attacked)}),
        "phases": dict(phases),
        "provenance": {**provenance, "code": this_code().source},
        "victim": {
            "model": recorded(unit.victim.model),
            "dataset": recorded(unit.victim.dataset),
            "recipe": asdict(unit.victim.recipe) if unit.victim.recipe else {},
            "defence": recorded(unit.victim.defence),
            "seed": unit.victim.seed,
        },
        "attack": recorded(attack),
    }
    table = rows.replace_schema_metadata({FOOTER_KEY: redacted(json.dumps(footer, sort_keys=True)).encode()})
    sink = pa.BufferOutputStream()
    # Most shards have few rows and many columns, and what a column costs then is its dictionary and its
    # statistics: without them a shard takes half the time to make, and is smaller.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        write_page_checksum=True,
        use_dictionary=["cell_id"],
        write_statistics=DIMENSIONS.names,
    )
    name = layout.new_shard(unit.victim.victim_id, attack.attack_id, unit.start, unit.stop)
    shards.publish(name, memoryview(sink.getvalue()))
    return name


def read_footer(shards: Folder, name: str, *, size: int, mtime_ns: int) -> ShardInfo:
    """Validate a file among the shards by its footer, and which rows there are by two of their columns.

    Raises InvalidShardError for an empty, truncated or foreign file, a later schema, or a footer that
    disagrees with the file's name or its rows; OSError where it cannot be read, which says nothing of it.
    """
    parquet = open_footer(shards, name, size=size)
    info = shard_of(parquet, name=name, size=size, mtime_ns=mtime_ns)
    check_rows(shards, info, parquet)
    return info


def open_footer(shards: Folder, name: str, *, size: int) -> pq.ParquetFile:
    """What the end of a file says of it; its rows are not there. InvalidShardError, OSError."""
    if size == 0:
        raise InvalidShardError("the file is empty")
    # Of a small file the tail is all of it, with the rows that are looked at next.
    metadata = None if shards.is_local or size <= _TAIL_BYTES else _metadata(shards, name, size)
    tail = b"" if metadata else _parquet_tail(shards, name)
    try:
        return pq.ParquetFile(pa.BufferReader(tail), metadata=metadata, page_checksum_verification=True)
    except UNREADABLE as error:  # from memory: the bytes are wrong
        raise InvalidShardError(f"not a readable Parquet file: {first_line(error)}") from error


def shard_of(parquet: pq.ParquetFile, *, name: str, size: int, mtime_ns: int) -> ShardInfo:
    """The shard that is a file by itself, which its footer speaks of; InvalidShardError where it is none."""
    schema = parquet.schema_arrow
    raw = (schema.metadata or {}).get(FOOTER_KEY)
    if raw is None:
        raise InvalidShardError("a Parquet file, but not one that robustsweep wrote")
    try:
        footer = as_json(raw)
    except ValueError as error:
        raise InvalidShardError(f"its footer lacks or garbles {error}") from error
    info, version = footer_info(footer, name=name, size=size, mtime_ns=mtime_ns)
    if not schema.equals(_schema(info.kind, version)):
        raise InvalidShardError("its columns are not those of a shard")
    if (rows := parquet.metadata.num_rows) != info.rows:
        raise InvalidShardError(
            f"{rows} rows, but its footer promises {info.stop - info.start} × {len(info.cells)}"
        )
    return info


@cache
def _schema(kind: Kind, version: int) -> pa.Schema:
    return pa.schema([column for column in SCHEMAS[kind] if _SINCE.get(column.name, 1) <= version])


def footer_info(footer: Any, *, name: str, size: int, mtime_ns: int) -> tuple[ShardInfo, int]:
    """What the footer of the shard of a name says, and its schema version; InvalidShardError where it lacks
    something, or cannot be true."""
    try:
        version = as_count(footer["schema_version"])
        info = ShardInfo(
            name=name,
            size=size,
            mtime_ns=mtime_ns,
            victim_id=as_text(footer["victim_id"]),
            attack_id=as_text(footer["attack_id"]),
            start=as_count(footer["start"]),
            stop=as_count(footer["stop"]),
            cells=tuple(map(as_text, as_list(footer["cells"]))),
            weights=as_text(footer["weights"]),
            published_at=as_text(footer["published_at"]),
            seconds=sum(map(as_seconds, footer["phases"].values())),
            device=as_text(footer["provenance"].get("device", "")),
            code=as_text(footer["provenance"].get("code", "")),
            versions=_versions(footer["provenance"].get("versions")),
            kind=_kind(footer.get("kind", "attack")),
            source_id=as_text(footer.get("source_id", "")),
            source_weights=as_text(footer.get("source_weights", "")),
            setup=sum(as_seconds(footer["phases"].get(phase, 0.0)) for phase in SETUP),
            visible=as_seconds(footer["phases"].get("perceptibility", 0.0)),
            cpus=as_count(footer["provenance"].get("cpus", 1)),
            gpus=as_seconds(footer["provenance"].get("gpus", 0.0)),
            attacked=None if footer.get("attacked") is None else as_count(footer["attacked"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidShardError(f"its footer lacks or garbles {error}") from error
    if not 1 <= version <= SCHEMA_VERSION:
        kind = LaterShardError if version > SCHEMA_VERSION else InvalidShardError
        raise kind(f"schema version {version}, this robustsweep reads 1 to {SCHEMA_VERSION}")
    if not (0 <= info.start < info.stop and 0 < len(set(info.cells)) == len(info.cells)):
        raise InvalidShardError(f"its footer promises [{info.start}, {info.stop}) of cells {info.cells}")
    if not name.startswith(f"{info.victim_id}/"):
        raise InvalidShardError(f"it belongs to victim {info.victim_id}, not to this folder")
    return info, version


def is_possible(info: ShardInfo) -> bool:
    """Whether a file may be what this says, as far as it tells by itself."""
    return (
        0 <= info.start < info.stop
        and 0 < len(set(info.cells)) == len(info.cells)
        and None not in info.cells
        and info.kind in get_args(Kind)
        and 0 <= info.seconds < math.inf
        and info.name.startswith(f"{info.victim_id}/")
    )


def check_rows(shards: Folder, info: ShardInfo, parquet: pq.ParquetFile) -> None:
    """Hold the rows of a shard against its footer: each cell at each position, once.

    A footer that promises other rows than there are would have some counted twice, or others for them.
    `parquet` is as of `open_footer`.
    Raises InvalidShardError; OSError where it cannot be read.
    """
    columns = ["cell_id", "position", *_ALWAYS[info.kind]]
    try:
        if info.size <= _TAIL_BYTES:  # its footer came with all the rest
            table = parquet.read(columns, use_threads=False)
        else:
            with shards.filesystem.open_input_file(shards.join(info.name)) as source:
                whole = pq.ParquetFile(source, metadata=parquet.metadata, page_checksum_verification=True)
                table = whole.read(columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # it is the storage that says so
        raise InvalidShardError(f"its rows cannot be read: {first_line(error)}") from error
    place = {cell: i for i, cell in enumerate(info.cells)}
    cells = table["cell_id"].combine_chunks().dictionary_encode()
    known = np.array([place.get(name, -1) for name in cells.dictionary.to_pylist()], np.int64)
    count = info.stop - info.start
    if not any(column.null_count for column in table.columns):
        cell, position = known[cells.indices.to_numpy()], table["position"].to_numpy() - info.start
        if ((cell >= 0) & (position >= 0) & (position < count)).all():
            times = np.bincount(cell * count + position, minlength=count * len(place))
            if (times == 1).all():
                return
    raise InvalidShardError("its rows are not those that its footer promises")


def _kind(recorded: object) -> Kind:
    if recorded not in get_args(Kind):
        raise ValueError(f"its kind, {recorded!r}")
    return cast(Kind, recorded)


def _versions(recorded: object) -> str:
    pairs = sorted(recorded.items()) if isinstance(recorded, dict) else ()
    return as_text(", ".join(f"{name} {version}" for name, version in pairs))


UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What PyArrow raises of a file that is no sound Parquet or cannot be read; the last, of columns' names."""

CHECKED = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""How rows are read: what a disk changes is an error, and no other number. Pages have carried their checksums
from the start."""


def fragment(shards: Folder, name: str, size: int) -> pads.ParquetFileFragment:
    """A shard of so many bytes, to be read in as few requests as can be: nobody has to ask for its size."""
    return CHECKED.make_fragment(shards.join(name), shards.filesystem, file_size=size)


def _metadata(shards: Folder, name: str, size: int) -> pq.FileMetaData | None:
    """Of a Parquet file of so many bytes, in one request; None for trouble, the file's or the storage's."""
    try:
        return fragment(shards, name, size).metadata
    except (pa.ArrowException, OSError):
        return None


def _parquet_tail(shards: Folder, name: str) -> bytes:
    """Enough of a file's end for its Parquet footer, made to look like a whole file. OSError."""
    tail, whole = shards.tail(name, _TAIL_BYTES)
    footer = int.from_bytes(tail[-8:-4], "little") + 8  # its length stands before the closing magic number
    if not whole and footer > len(tail):
        tail, whole = shards.tail(name, footer)
    return tail if whole else tail[-4:] + tail
