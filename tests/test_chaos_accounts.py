"""The harness of `make chaos`, without chaos: its list of faults, its accounts, its reader, its page."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.chaos import sabotage
from benchmarks.chaos.accounts import (
    Account,
    Happened,
    count_rows,
    count_units,
    take_out_unkept,
    time_recoveries,
)
from benchmarks.chaos.faults import KINDS, trials
from benchmarks.chaos.reader import Expected, Reader
from benchmarks.chaos.report import page, surroundings
from benchmarks.chaos.scene import VARIABLE, Execution, Scene
from benchmarks.chaos.trial import write_grid
from orchestrator.store import accepted
from orchestrator.store.folder import Store
from tests.support.sweeps import sweep

RUNNER = "benchmarks.chaos.runner:Light"


# -- what is to befall --------------------------------------------------------------


def test_a_seed_says_what_befalls_and_when() -> None:
    assert trials(3) == trials(3) != trials(4)
    assert trials(3, only=["clock"]) == [trial for trial in trials(3) if trial.name == "clock"]
    drawn = Counter(fault.kind for trial in trials(3) for fault in trial.faults if not trial.mutation)
    assert drawn.keys() == KINDS.keys() and drawn.total() >= 200
    smoked = {kind for trial in trials(3, smoke=True) for kind in trial.kinds}
    assert smoked == KINDS.keys() - {"cache", "raylet", "gcs", "node raylet", "head"}
    for trial in trials(3):
        assert [fault.after for fault in trial.faults] == sorted(fault.after for fault in trial.faults)
        assert all(1 <= fault.after < trial.units for fault in trial.faults)


# -- accounts --------------------------------------------------------------


def account(*faults: Happened) -> Account:
    return Account("t", "ray", 2, faults=list(faults))


def counted(faults: list[Happened], *executions: Execution) -> Account:
    found = account(*faults)
    count_units(found, executions)
    found.judge()
    return found


FIRST = Execution("u", 1, "a", 10.0, None)
AGAIN = Execution("u", 2, "a", 13.0, 14.0)


@pytest.mark.parametrize(
    ("fault", "earlier", "explained"),
    [
        (Happened("worker", 11.0, frozenset([1])), FIRST, True),
        (Happened("worker", 11.0, frozenset([7])), FIRST, False),  # another worker
        (Happened("worker", 9.0, frozenset([1])), FIRST, False),  # before it began
        (Happened("worker", 15.0, frozenset([1])), FIRST, False),  # after it was begun again
        (Happened("worker", 12.5, frozenset([1])), replace(FIRST, end=12.0), True),  # the report was lost
        (Happened("worker", 12.5, frozenset([1])), replace(FIRST, end=10.4), False),  # and this one was not
        (Happened("worker", 12.5, frozenset([1])), replace(FIRST, failed=12.0), False),  # it failed before
        (Happened("removed", 9.0, frozenset([1])), FIRST, True),  # its worker lived on for a moment
        (Happened("removed", 7.0, frozenset([1])), FIRST, False),
        (Happened("gcs", 11.0, None), FIRST, True),
        (Happened("gcs", 9.0, None), FIRST, True),  # it was on its way
        (Happened("gcs", 7.0, None), FIRST, False),
        (Happened("full", 7.0, None, until=12.0), replace(FIRST, failed=11.0), True),  # which lasts
        (Happened("full", 7.0, None, until=9.5), replace(FIRST, failed=11.0), False),
        (Happened("clock", 11.0, None), FIRST, False),  # which may cost nothing
        (Happened("drivers", 9.0, frozenset()), replace(FIRST, run_id="b", end=12.0), True),
        (Happened("drivers", 9.0, frozenset()), replace(FIRST, end=12.0), False),  # of the same driver
    ],
)
def test_what_is_computed_again_is_laid_to_the_fault_that_took_it(
    fault: Happened, earlier: Execution, explained: bool
) -> None:
    found = counted([fault], earlier, AGAIN)
    assert (found.units, found.executed, fault.cost) == (1, 2, int(explained))
    assert (found.unexplained == 0) == explained == (not found.problems)


def test_what_befell_a_unit_goes_before_what_befell_the_driver_before() -> None:
    """A driver that is killed is soon started again, and its next unit may meet a full disk at once."""
    driver, full = Happened("driver", 9.0, None), Happened("full", 10.5, None, until=12.0)
    counted([driver, full], replace(FIRST, failed=11.0), AGAIN)
    assert (driver.cost, full.cost) == (0, 1)
    raylet, gcs = Happened("raylet", 9.8, None), Happened("gcs", 12.5, None)  # on its way to a worker
    counted([raylet, gcs], replace(FIRST, end=10.5), AGAIN)
    assert (raylet.cost, gcs.cost) == (1, 0)


def test_what_ended_well_before_its_worker_was_killed_is_laid_to_the_other_driver() -> None:
    worker, drivers = Happened("worker", 12.1, frozenset([1])), Happened("drivers", 9.0, frozenset())
    counted([worker, drivers], replace(FIRST, end=12.0), replace(AGAIN, run_id="b"))
    assert (worker.cost, drivers.cost) == (0, 1)
    counted([worker, drivers], FIRST, replace(AGAIN, run_id="b"))  # this one was in flight
    assert (worker.cost, drivers.cost) == (1, 1)


def test_a_line_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    with scene.executing("u", "r"), (tmp_path / "executed.log").open("a") as log:
        log.write("begin v r 12")
        log.flush()
        assert [one.unit for one in scene.executions()] == ["u"]
        log.write(" 3.5\n")
    assert [(one.unit, one.end is None) for one in scene.executions()] == [("u", False), ("v", True)]


def test_a_copy_of_a_slow_unit_is_none_of_it() -> None:
    late = replace(AGAIN, begin=16.0, end=17.0)
    assert counted([], replace(FIRST, end=18.0), late).copies == 1
    assert counted([], replace(FIRST, failed=12.0), late).unexplained == 1
    assert counted([], replace(FIRST, end=15.0), late).unexplained == 1  # it was through by then


def test_a_fault_that_costs_more_than_what_was_in_flight_is_a_problem() -> None:
    units = [Execution(f"u{place}", 1, "a", 10.0, 10.5) for place in range(3)]
    again = [replace(one, pid=2, begin=12.0, end=13.0) for one in units]
    for kind, pids, most in (("worker", frozenset([1]), 1), ("driver", None, 2)):
        for count in (most, most + 1):
            found = counted([Happened(kind, 11.0, pids)], *units[:count], *again[:count])
            assert bool(found.problems) == (count > most)


def test_recovery_is_until_a_new_process_has_done_something() -> None:
    here = Execution("v", 3, "a", 9.0, 20.0)  # goes on all along
    killed, full = Happened("worker", 11.0, frozenset([1])), Happened("full", 11.0, None, until=12.0)
    clock, last = Happened("clock", 11.0, frozenset()), Happened("worker", 30.0, frozenset([2]))
    write = Happened("write", 14.5, frozenset([3]))  # of a process that lives
    faults = [killed, full, clock, last, write]
    time_recoveries(faults, [here, FIRST, AGAIN])
    assert [fault.recovery for fault in faults] == [3.0, 3.0, 3.0, None, 5.5]


# -- the reader --------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 12 units, of which each has two shards."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(path / "scene")
        scene.make()
        patch.setenv(VARIABLE, str(scene.path))
        patch.setenv("ROBUSTSWEEP_CHAOS_PACE", "0")
        patch.setattr(sabotage.storage, "os", sabotage.storage.os)  # given back at the end
        write_grid(path / "grid.yaml", 12, real=False)
        sweep(path / "grid.yaml", path / "out", runner=RUNNER)
        (path / "out" / "shards").rename(path / "first")
        sweep(path / "grid.yaml", path / "out", runner=RUNNER)
    shutil.copytree(path / "first", path / "out" / "shards", dirs_exist_ok=True)
    return path


def reader(whole: Path, tmp_path: Path) -> Reader:
    """One that has looked once, at a copy."""
    shutil.copytree(whole / "out", tmp_path / "out")
    rows = Store(str(tmp_path / "out")).accepted_shards().dataset().to_table()
    one = Reader(str(tmp_path / "out"), Expected(rows))
    one.look()
    return one


def problems(one: Reader) -> dict[str, bool]:
    names = ("partial", "doubled", "vanished", "wrong", "errors")
    return {name: True for name in names if getattr(one.findings, name)}


def shards(one: Reader) -> list[Path]:
    return sorted(Path(one.output).rglob("*.parquet"))


def test_a_reader_finds_nothing_where_nothing_is_wrong(whole: Path, tmp_path: Path) -> None:
    one = reader(whole, tmp_path)
    one.look_at_views()
    assert problems(one) == {} and (one.findings.files, one.findings.asked) == (24, 2)
    assert one.findings.rows == one.expected.rows.num_rows == 72


def half(one: Reader) -> None:
    name = next(path for path in shards(one) if "shards" in path.parts)
    name.with_name(f"x{name.name}").write_bytes(name.read_bytes()[:1000])


def rewritten(one: Reader) -> None:
    name = next(path for path in shards(one) if "shards" in path.parts)
    name.write_bytes(name.read_bytes())


def gone(one: Reader) -> None:
    shutil.rmtree(Path(one.output) / "shards")


def other(one: Reader) -> None:
    rows = one.expected.rows
    place = rows.schema.get_field_index("label")
    one.expected.rows = rows.set_column(
        place, rows.schema.field(place), pa.array([3] * len(rows), pa.int32())
    )


def twice(one: Reader) -> None:
    sabotage.twice()


def no_folder(one: Reader) -> None:
    shutil.rmtree(one.output)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (half, "partial"),
        (rewritten, "partial"),
        (gone, "vanished"),
        (other, "wrong"),
        (twice, "doubled"),
        (no_folder, "errors"),
    ],
)
def test_a_reader_sees_it(
    spoil: Callable[[Reader], None], found: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted, "accept", accepted.accept)  # given back at the end
    one = reader(whole, tmp_path)
    spoil(one)
    one.look()
    assert problems(one) == {found: True}


def test_rows_are_counted_by_cell_and_position(whole: Path) -> None:
    rows = Store(str(whole / "out")).accepted_shards().dataset().to_table()
    expected, found = Expected(rows), account()
    count_rows(found, rows, expected)
    assert (found.lost, found.doubled, found.differing) == (0, 0, 0)
    count_rows(found, pa.concat_tables([rows.slice(7), rows.slice(10, 2)]), expected)
    assert (found.lost, found.doubled, found.differing) == (7, 2, 0)
    with pytest.raises(ValueError, match="holes"):
        Expected(rows.slice(1))


@pytest.mark.parametrize(
    ("execution", "unkept"),
    [
        (Execution("v/a/3-6", 1, "r", 10.0, None), ["v/a/3", "v/a/5"]),
        (Execution("v/a/3-6", 1, "r", 10.0, None, failed=11.5), ["v/a/3", "v/a/5"]),
        (Execution("v/a/3-6", 1, "r", 10.0, 10.9), []),  # it was published
        (Execution("v/a/3-6", 1, "r", 10.0, None, failed=10.9), []),  # the disk was sound
        (Execution("v/a/3-6", 1, "r", 11.5, None), []),
        (Execution("v/b/3-6", 1, "r", 10.0, None), []),
        (Execution("train/v", 1, "r", 10.0, None), []),
    ],
)
@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_what_no_unit_had_called_published_may_go_with_a_disk(
    kind: str, execution: Execution, unkept: list[str]
) -> None:
    found = account(Happened(kind, 11.0, None, until=14.0))
    found.findings.vanished.update(["v/a/2", "v/a/3", "v/a/3", "v/a/5", "v/a/6"])
    take_out_unkept(found, [execution])
    assert sorted(found.unkept) == (unkept if kind == "read-only" else [])
    assert found.unkept | set(found.findings.vanished) == {"v/a/2", "v/a/3", "v/a/5", "v/a/6"}
    found.judge()
    assert found.problems == [f"a reader saw {4 - len(found.unkept)} rows (v/a/2 first) vanished"]


def test_the_page_says_what_went_wrong() -> None:
    found = account(Happened("worker", 11.0, frozenset([1]), recovery=2.5, cost=1))
    found.lost, found.rows = 3, 237
    found.judge()
    text = page(surroundings(5, [1.0, 2.0]), {"full": "no root"}, [found])
    assert "**1 faults in 1 sweeps: 3 rows lost, 0 doubled" in text and "3 rows lost" in text
    assert "| a worker is killed | 1 | 3 | 0 | 0 | 1 | 1 | 2.5 | 2.5 |" in text
    assert "Not run here: the disk of the output is full (no root)" in text
    assert "- t: 3 rows lost" in text and "{" not in text
