"""A run seen from outside: the log of its events and its metrics."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from orchestrator.run import events
from orchestrator.run.backends import Notice
from orchestrator.run.backends.registry import BACKENDS
from orchestrator.run.events import EventLog
from orchestrator.run.progress import SweepState
from orchestrator.store.folder import Store
from tests.support.sweeps import Scripted, sweep, write_grid
from workers.storage import Folder
from workers.unit import Training


def read(output: Path) -> list[dict[str, Any]]:
    (log,) = output.glob("runs/*/events.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_what_happens_is_told_in_order(tmp_path: Path) -> None:
    def answer(unit: Any, attempt: int) -> Any:
        if isinstance(unit, Training) or attempt > 1 or unit.start == 0:
            return made.runner(unit)
        return "charged"

    made: Any = None

    def pool(options: Any, settings: Any, **rest: Any) -> Any:
        nonlocal made
        made = Scripted(settings, answer, workers=1)
        made.events.append(Notice("s3://me:secret@bucket is slow"))
        return made

    output = tmp_path / "out"
    summary = sweep(write_grid(tmp_path / "grid.yaml"), output, pool=pool)
    assert summary.exit_code == 0
    told = read(output)
    assert [one["event"] for one in told] == [
        "run_started",
        "notice",
        "worker_joined",
        "unit_started",
        "unit_finished",
        "victim_trained",
        "unit_started",
        "unit_finished",
        "unit_started",
        "worker_lost",
        "unit_failed",
        "worker_joined",
        "unit_started",
        "unit_finished",
        "run_ended",
    ]
    assert [one["n"] for one in told] == list(range(1, len(told) + 1))
    assert told[0]["cells"] == 2 and told[0]["units"] == 3
    assert told[1]["text"] == "s3://***@bucket is slow"
    (failed,) = [one for one in told if one["event"] == "unit_failed"]
    assert (failed["worker"], failed["kind"], failed["attempt"], failed["final"]) == (
        "w1",
        "attack",
        1,
        False,
    )
    assert failed["error"] == told[9]["reason"] == "its process died" and told[9]["charged"]
    done = [one for one in told if one["event"] == "unit_finished"]
    assert [one["kind"] for one in done] == ["training", "attack", "attack"]
    assert not any(one["copy"] for one in done)
    assert done[1]["rows"] == 100 and done[1]["phases"] == {} and done[1]["seconds"] >= 0
    last = told[-1]
    assert (last["state"], last["units_done"], last["cells_done"]) == ("finished", 3, 2)


def test_every_event_is_documented() -> None:
    """And nothing else is."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "watching.md").read_text()
    source = "".join(
        (root / "orchestrator" / "run" / name).read_text() for name in ("loop.py", "watching.py", "events.py")
    )
    told = set(re.findall(r'note\(\s*"(\w+)"', source))
    documented, metrics = (
        set(re.findall(r"^\| `(\w+)` \|", part, re.M))
        for part in page.partition("## Events")[2].split("## Metrics")
    )
    assert len(told) == 13 and told == documented
    made = (root / "orchestrator" / "run" / "backends" / "ray_metrics.py").read_text()
    names = re.findall(r'make\(\s*(?:Counter|Gauge|Histogram), "(\w+)"', made)
    assert len(names) == 8 and metrics == {f"robustsweep_{name}" for name in names}


class Far:
    """The folder of a run on an object store, whose writes can be made to fail."""

    def __init__(self) -> None:
        self.store = Store("x")
        self.store.folder = Folder(fs._MockFileSystem(), "bucket/out")
        self.now = 0.0
        self.log = EventLog(self.store, "000001-x", clock=lambda: self.now)

    def parts(self) -> dict[str, list[Any]]:
        files = self.store.folder.files("runs/000001-x")
        read = {file.base_name: self.store.folder.read(f"runs/000001-x/{file.base_name}") for file in files}
        return {name: [json.loads(line) for line in data.splitlines()] for name, data in sorted(read.items())}


def test_on_an_object_store_lines_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is full is never written again, so that the bytes that are written grow with the lines."""
    monkeypatch.setattr(events, "PART_BYTES", 2000)
    far, written = Far(), []
    publish = Folder.publish
    monkeypatch.setattr(
        Folder, "publish", lambda folder, name, data: (written.append(len(data)), publish(folder, name, data))
    )
    for number in range(600):
        far.now += 1
        far.log.note("notice", text=f"{number:030}")
        far.log.flush()
    far.log.close()
    parts = far.parts()
    assert list(parts)[:2] == ["events-000001.jsonl", "events-000002.jsonl"]
    assert [line["n"] for lines in parts.values() for line in lines] == list(range(1, 601))
    assert len(written) <= 600 / events.FAR_SECONDS + 1
    assert max(written) < 2000 + 15 * 200 and sum(written) < 2 * 600 * 200
    before = len(written)
    far.log.flush(last=True)
    assert len(written) == before  # there is nothing new


def test_what_a_store_does_not_take_is_kept_and_then_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()

    def down(folder: Folder, name: str, data: bytes) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "publish", down)
        patch.setattr(events, "_KEPT_BYTES", 1000)
        for _ in range(50):
            far.log.note("notice", text="x" * 100)
            far.now += 20
            far.log.flush()
    far.log.flush(last=True)
    far.log.close()
    (lines,) = far.parts().values()
    assert 3 < len(lines) < 12 and lines[-1]["event"] == "lines_lost"
    assert len(lines) - 1 + lines[-1]["count"] == 50


def test_a_full_disk_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *rest: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    log = EventLog(Store(str(tmp_path / "out")), "000001-x")
    log.note("notice", text="x")
    log.close()


class Broken:
    def __init__(self, grid: str, run: str) -> None:
        self.names = grid, run

    def note(self, event: str, fields: dict[str, Any]) -> None:
        raise RuntimeError("Ray is gone")

    look = note


def test_metrics_that_break_stop_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "inline", replace(BACKENDS["inline"], metrics="tests.test_watching:Broken"))
    assert sweep(write_grid(tmp_path / "grid.yaml"), tmp_path / "out").exit_code == 0
    monkeypatch.setitem(BACKENDS, "inline", replace(BACKENDS["inline"], metrics="tests.nowhere:Broken"))
    assert sweep(write_grid(tmp_path / "grid.yaml"), tmp_path / "out2").exit_code == 0


def test_metrics_count_what_events_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's own metric objects, with what they would send."""
    from orchestrator.run.backends import ray_metrics

    sent: list[tuple[str, float, dict[str, str]]] = []

    class Recorded:
        def __init__(self, name: str, text: str, tag_keys: Any, **more: Any) -> None:
            self.real = real[type(self).__name__](name, text, tag_keys=tag_keys, **more)
            self.name = name

        def set_default_tags(self, tags: dict[str, str]) -> None:
            self.real.set_default_tags(tags)

        def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
            self.real._validate_tags(self.real._get_final_tags(tags or {}))
            sent.append((self.name, value, tags or {}))

        set = observe = inc

    real = {name: getattr(ray_metrics, name) for name in ("Counter", "Gauge", "Histogram")}
    for name in real:
        monkeypatch.setattr(ray_metrics, name, type(name, (Recorded,), {}))
    metrics = ray_metrics.RayMetrics("mine", "000001-x", clock=lambda: 0.0)
    unit = {"worker": "w1", "unit": "u", "label": "u", "kind": "attack"}
    metrics.note("unit_finished", {**unit, "seconds": 2.0, "phases": {"load": 0.5, "attack": 1.5}, "rows": 9})
    metrics.note("unit_failed", {**unit, "attempt": 1, "final": False, "error": "x"})
    metrics.note("unit_failed", {**unit, "attempt": 2, "final": True, "error": "x"})
    metrics.note("unit_elsewhere", unit)
    metrics.note("worker_lost", {"worker": "w1", "reason": "x", "charged": True})
    state = SweepState(grid="mine", cells=10, cells_done=4, units=7, workers={"w1": "on it", "w2": ""})
    metrics.look(state, 3)
    metrics.look(state, 3)  # at most now and then
    outcomes = ["done", "retry", "failed", "elsewhere"]
    assert [(tags["kind"], tags["outcome"]) for name, _, tags in sent if name == "robustsweep_units"] == [
        ("attack", outcome) for outcome in outcomes
    ]
    values = [(name, value, tags) for name, value, tags in sent if name != "robustsweep_units"]
    assert values == [
        ("robustsweep_seconds", 2.0, {"kind": "attack"}),
        ("robustsweep_unit_seconds", 2.0, {"kind": "attack"}),
        ("robustsweep_phase_seconds", 0.5, {"phase": "load"}),
        ("robustsweep_phase_seconds", 1.5, {"phase": "attack"}),
        ("robustsweep_workers_lost", 1, {}),
        ("robustsweep_workers", 1, {"state": "busy"}),
        ("robustsweep_workers", 1, {"state": "idle"}),
        ("robustsweep_queue", 3, {}),
        ("robustsweep_cells", 4, {"state": "done"}),
        ("robustsweep_cells", 6, {"state": "open"}),
    ]
