"""The records that a run leaves beside its shards, as types: its failures and where it stands.

As JSON in the output folder. Nothing hangs on them but what is shown, so that a garbled one counts as none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from workers.recorded import LARGEST

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

RunState = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt at a unit that failed."""

    at: str  # ISO 8601, UTC
    run_id: str
    unit_id: str
    unit: str  # in words
    victim_id: str
    attack_id: str | None  # None for a training
    cells: list[str]
    start: Count  # positions [start, stop) of the evaluation order
    stop: Count
    attempt: Count
    final: bool  # no attempt was left: the unit counts as failed until --retry-failed
    error: str
    traceback: str
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a run stands: what a `SweepState` says, and who says it when."""

    run_id: str
    host: str
    pid: Annotated[int, Field(gt=0, le=LARGEST)]
    sequence: Count  # raised with every writing
    updated_at: str  # ISO 8601, UTC
    grid: str
    state: RunState
    cells: Count
    cells_done: Count
    units: Count
    units_done: Count
    units_failed: Count
    seconds: Seconds
    ready_after: Seconds | None = None  # until the first worker was ready
    seconds_left: Seconds | None = None
    at_least: bool = False  # of `seconds_left`: some of the work has no rate yet
    note: str = ""
    pool: str = ""  # workers and machines, on a cluster
    workers: dict[str, str] = field(default_factory=dict)  # worker -> what it is on
    failures: list[str] = field(default_factory=list)  # the latest, in words
    phases: dict[str, Seconds] = field(default_factory=dict)  # seconds of all workers together, by phase
    used: dict[str, Seconds] = field(default_factory=dict)  # hours that workers were held, by device


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Failure, Status)}

_Record = TypeVar("_Record", Failure, Status)


def from_json(kind: type[_Record], value: object) -> _Record | None:
    """The record that a JSON value holds; None unless it is whole. Unknown keys are ignored."""
    try:
        record: _Record = _ADAPTERS[kind].validate_python(value)
    except ValidationError:
        return None
    return record
