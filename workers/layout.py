"""Every path of an output folder and of a cache of victims, as names below it.

```
OUTPUT                                                  CACHE
grid.yaml               the grid as last run            <victim>/<sha256>.weights.h5
shards/<victim>/<attack>.<start>-<stop>.<uuid>.parquet  <victim>/<sha256>.json   its manifest
shards/<victim>/merged.<uuid>.parquet   many of them in one
                                                        <victim>/training.npz    how far its training is
pins/<victim>.<sha256>.json   the weights whose shards count
probes/<victim>.<sha256>.json what the victim of these weights is like to attack
index/<uuid>.parquet    what shard footers say, so that they need not be read again
measured/<uuid>.parquet what cells came to, so that their rows need not be read again
removals/<uuid>.json    the last time that files were removed from shards/, merged ones
failures/<run>/<uuid>.json    one record for each attempt that failed
runs/<run>/             cells.parquet, run.json, grid.yaml, status.json, events.jsonl, logs/, training/
tables/                 cells.parquet, checks.parquet, robustness.csv, robustness.md
strengthened/           stronger attacks on survivors alone: such a folder, but for index, measured and tables
                        of its own kind, and with survivors.json, which says that it is none by itself
```
"""

from __future__ import annotations

import re
import uuid

GRID = "grid.yaml"
SHARDS = "shards"
PINS = "pins"
PROBES = "probes"
INDEX = "index"
MEASURED = "measured"
REMOVALS = "removals"
FAILURES = "failures"
RUNS = "runs"
TABLES = "tables"
STRENGTHENED = "strengthened"
SURVIVORS = "survivors.json"

_PIN = re.compile(r"(.+)\.([0-9a-f]{64})\.json")
_CACHED = re.compile(r"([0-9a-f]{64})\.(json|weights\.h5)")


_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+~-]{0,254}")


def is_name(text: str) -> bool:
    """Whether a text may be an id of ours, and the name of a file or folder: no path, nor a hidden file."""
    return bool(_NAME.fullmatch(text))


def new_shard(victim_id: str, attack_id: str, start: int, stop: int) -> str:
    """Below `SHARDS`; never the same twice."""
    return f"{victim_id}/{attack_id}.{start}-{stop}.{uuid.uuid4().hex}.parquet"


def new_merged(victim_id: str) -> str:
    """Below `SHARDS`; never the same twice."""
    return f"{victim_id}/merged.{uuid.uuid4().hex}.parquet"


def new_removal() -> str:
    return f"{REMOVALS}/{uuid.uuid4().hex}.json"


def pin(victim_id: str, weights: str) -> str:
    return f"{PINS}/{victim_id}.{weights}.json"


def probes(victim_id: str, weights: str) -> str:
    return f"{PROBES}/{victim_id}.{weights}.json"


def pinned_by(base_name: str) -> tuple[str, str] | None:
    """The victim id and the weights that a file in `PINS` speaks of; None for any other file."""
    match = _PIN.fullmatch(base_name)
    return (match[1], match[2]) if match else None


def new_failure(run_id: str) -> str:
    return f"{FAILURES}/{run_id}/{uuid.uuid4().hex}.json"


def run_claim(number: int) -> str:
    """Says that some driver has taken this number for a run."""
    return f"{RUNS}/{number:06d}.claim"


def claimed_number(base_name: str) -> int | None:
    """The number that a file in `RUNS` claims; None for any other file."""
    match = re.fullmatch(r"(\d{6,})\.claim", base_name)
    return int(match[1]) if match else None


def run_number(run_id: str) -> int:
    """By which runs are ordered; 0 for an id that has none."""
    match = re.match(r"(\d{6,})-", run_id)
    return int(match[1]) if match else 0


def run_grid(run_id: str) -> str:
    return f"{RUNS}/{run_id}/{GRID}"


def run_cells(run_id: str) -> str:
    """The cells that a run was asked for. Its presence makes a run of a folder."""
    return f"{RUNS}/{run_id}/cells.parquet"


def run_record(run_id: str) -> str:
    return f"{RUNS}/{run_id}/run.json"


def run_status(run_id: str) -> str:
    return f"{RUNS}/{run_id}/status.json"


def run_events(run_id: str, part: int | None = None) -> str:
    """What happened in a run, line by line; on an object store in parts, from 1."""
    return f"{RUNS}/{run_id}/events{'' if part is None else f'-{part:06d}'}.jsonl"


def run_logs(run_id: str) -> str:
    return f"{RUNS}/{run_id}/logs"


def training_progress(run_id: str, victim_id: str) -> str:
    return f"{RUNS}/{run_id}/training/{victim_id}.json"


def table(name: str) -> str:
    return f"{TABLES}/{name}"


def cached_weights(victim_id: str, weights: str) -> str:
    return f"{victim_id}/{weights}.weights.h5"


def cached_manifest(victim_id: str, weights: str) -> str:
    return f"{victim_id}/{weights}.json"


def cached_training(victim_id: str) -> str:
    return f"{victim_id}/training.npz"


def inside(location: str, name: str) -> str:
    """The location of a folder in the one at `location`, a path or a URI, whose options stay behind it."""
    if "://" not in location:
        return f"{location.rstrip('/') or '/'}/{name}"
    place, question, options = location.partition("?")
    return f"{place.rstrip('/')}/{name}{question}{options}"


def weights_of(base_name: str) -> str | None:
    """The weights that a file of the cache belongs to; None for a file that is none of the cache's."""
    match = _CACHED.fullmatch(base_name)
    return match[1] if match else None
