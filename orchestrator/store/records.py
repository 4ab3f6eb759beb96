"""The records that a run leaves beside its shards, as types: its failures and where it stands.

As JSON in the output folder. Nothing hangs on them but what is shown, so that a garbled one counts as none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

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
    start: int  # positions [start, stop) of the evaluation order
    stop: int
    attempt: int
    final: bool  # no attempt was left: the unit counts as failed until --retry-failed
    error: str
    traceback: str
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a run stands: what a `SweepState` says, and who says it when."""

    run_id: str
    host: str
    pid: int
    sequence: int  # raised with every writing
    updated_at: str  # ISO 8601, UTC
    grid: str
    state: RunState
    cells: int
    cells_done: int
    units: int
    units_done: int
    units_failed: int
    seconds: float
    ready_after: float | None = None  # seconds until the first worker was ready
    seconds_left: float | None = None
    at_least: bool = False  # of `seconds_left`: some of the work has no rate yet
    note: str = ""
    pool: str = ""  # workers and machines, on a cluster
    workers: dict[str, str] = field(default_factory=dict)  # worker -> what it is on
    failures: list[str] = field(default_factory=list)  # the latest, in words
    phases: dict[str, float] = field(default_factory=dict)  # seconds of all workers together, by phase
    used: dict[str, float] = field(default_factory=dict)  # hours that workers were held, by device


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Failure, Status)}

_Record = TypeVar("_Record", Failure, Status)


def from_json(kind: type[_Record], value: object) -> _Record | None:
    """The record that a JSON value holds; None unless it is whole. Unknown keys are ignored."""
    try:
        record: _Record = _ADAPTERS[kind].validate_python(value)
    except ValidationError:
        return None
    return record
