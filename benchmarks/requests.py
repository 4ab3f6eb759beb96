"""What a sweep asks of an object store: requests, which are what costs time and money there.

Against an S3 server on this machine; requests are counted before it, by a proxy.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.reading import Reading
from tests.support.object_store import Proxy, s3_server
from tests.support.sweeps import sweep, write_grid


def measure(*, units: int = 100, slow: int = 500) -> list[Reading]:
    """Sweeps of made-up units, with one worker in this process: `units` of them, and four times as many, so
    that what each unit takes is told from what a run takes; there are 500 examples. `slow`: units of 0.1 s,
    over which what goes on beside units is counted."""
    with s3_server() as s3, tempfile.TemporaryDirectory() as folder:
        few, more = (_run(s3, Path(folder), count) for count in (units, 4 * units))
        again = _run(s3, Path(folder), units)
        minute = _beside(s3, Path(folder), slow)
    each = {name: (more[name] - few[name]) / (3 * units) for name in more}
    alone = sum(few.values()) - units * sum(each.values())
    return [
        Reading(what="requests of a unit", value=sum(each.values()), at_most=6),
        *(
            Reading(what=f"{name} among them", value=each[name])
            for name in ("PUT", "GET", "HEAD", "LIST", "DELETE")
        ),
        Reading(what="requests of a run beside its units", value=alone),
        Reading(what=f"all requests of a run of {units:,} units, by unit", value=sum(few.values()) / units),
        Reading(what="requests of a run that finds everything done", value=sum(again.values())),
        Reading(what="requests a minute beside units, while they run", value=minute),
    ]


def _run(s3: Proxy, folder: Path, units: int, mood: str = "work") -> Counter[str]:
    s3.forget()
    grid = write_grid(folder / "grid.yaml", [mood], examples=units, slice=1)
    summary = sweep(grid, s3.uri(f"{mood}{units}"))
    if summary.exit_code:
        raise RuntimeError(f"the sweep failed: {list(summary.state.failures)}")
    return s3.counts()


def _beside(s3: Proxy, folder: Path, units: int) -> float:
    """Requests a minute that are not about shards, while units run."""
    begun = time.perf_counter()
    _run(s3, folder, units, "slow")
    minutes = (time.perf_counter() - begun) / 60
    shards = [i for i, one in enumerate(s3.requests) if one.method == "PUT" and "/shards/" in one.key]
    during = s3.requests[shards[0] : shards[-1]]
    return sum("/shards/" not in one.key or one.method == "LIST" for one in during) / minutes
