"""What leaving a shard behind costs, beside writing the same bytes to the same folder."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import sweeps
from benchmarks.reading import Reading, alternate, median_ratio
from workers.storage import Folder

WORKERS = 2
ROUNDS = 5  # the parts take turns, since other jobs make a disk slow for seconds at a time


def measure(*, units: int = 2000, repeats: int = 3, backend: str = "ray") -> list[Reading]:
    """A small shard (one example, three epsilons) for each unit, through scheduler and Ray; then its parts,
    in one process. The bare loop writes, fsyncs and renames."""
    read: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            recorder, output = sweeps.run_units(
                units, Path(folder), runner=sweeps.PUBLISHER, backend=backend, workers=WORKERS
            )
            shard = next(output.glob("shards/*/*.parquet"))
            parts = alternate(_parts(shard, -(-units // ROUNDS)), repeats=ROUNDS)
        for name, rates in {"sweep": [recorder.rate], **parts}.items():
            read.setdefault(name, []).append(statistics.median(rates))
    rate = {name: statistics.median(rates) for name, rates in read.items()}
    return [
        Reading(what=f"units that publish a shard, {WORKERS} workers", value=rate["sweep"], unit="units/s"),
        Reading(what="bare loop", value=rate["bare"], unit="files/s"),
        Reading(what="units / bare loop", value=median_ratio(read["sweep"], read["bare"]), at_least=0.7),
        Reading(what="bare loop that fsyncs the folder too", value=rate["durable"], unit="files/s"),
        Reading(
            what="publishing ready bytes / bare loop that fsyncs the folder too",
            value=median_ratio(read["publish"], read["durable"]),
            at_least=0.7,
        ),
        Reading(what="serialising a shard", value=rate["serialise"], unit="shards/s"),
    ]


def _parts(shard: Path, times: int) -> dict[str, Callable[[], float]]:
    """Ways to do a part of the work so many times; each returns how often a second."""
    folder, data, table = Folder.at(shard.parent), shard.read_bytes(), pq.read_table(shard)
    ways: dict[str, Callable[[str], None]] = {
        "bare": lambda name: _write(shard.parent, name, data),
        "durable": lambda name: _write(shard.parent, name, data, durable=True),
        "publish": lambda name: folder.publish(name, data),
        "serialise": lambda name: pq.write_table(
            table, pa.BufferOutputStream(), compression="zstd", write_page_checksum=True
        ),
    }

    def rate(way: str) -> float:
        names = [uuid.uuid4().hex for _ in range(times)]
        begun = time.perf_counter()
        for name in names:
            ways[way](name)
        return times / (time.perf_counter() - begun)

    return {way: partial(rate, way) for way in ways}


def _write(folder: Path, name: str, data: bytes, *, durable: bool = False) -> None:
    temporary = folder / f".{name}.tmp"
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(folder / name)
    if durable:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
