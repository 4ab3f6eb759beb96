"""What a trial came to, counted from what was executed, what was accepted, and what was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pyarrow as pa

from benchmarks.chaos.faults import KINDS
from benchmarks.chaos.reader import Expected, Findings
from benchmarks.chaos.scene import Execution

NAMED = 3  # units that were computed again for no reason are named
LAG_SECONDS = 2.0  # a unit on its way to a worker may begin after what it hangs on was killed; so its report
LINGERING = ("node raylet", "removed")  # whose workers outlive what was ended, for a moment
COPY_SECONDS = 5.0  # `orchestrator.run.stragglers`: no unit is copied sooner


@dataclass
class Happened:
    """A fault as it befell a trial. `pids`: the processes it ended; None: all that worked for a driver."""

    kind: str
    at: float
    pids: frozenset[int] | None
    until: float = float("inf")  # when what was taken was given back
    recovery: float | None = None  # seconds; None where nothing was left to be done
    cost: int = 0  # units that were computed again because of it

    @property
    def over(self) -> float:
        """When what was taken was given back; of a fault that takes nothing for a while, when it happened."""
        return self.at if self.until == float("inf") else self.until


@dataclass
class Account:
    """What a trial came to. `problems` are what may not be, in words."""

    name: str
    place: str
    workers: int
    mutation: str = ""
    faults: list[Happened] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)  # drawn, but the sweep was over or none was there
    units: int = 0
    executed: int = 0
    copies: int = 0  # units that an idle worker ran as well, as they took long
    unexplained: int = 0  # units computed again for no reason
    rows: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    codes: list[int] = field(default_factory=list)  # how the drivers ended
    findings: Findings = field(default_factory=Findings)
    unkept: set[str] = field(default_factory=set)  # rows seen that a disk had not kept yet when it failed
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Say what may not be."""
        for name in ("unexplained", "lost", "doubled", "differing"):
            if count := getattr(self, name):
                self.problems.append(f"{count} {'units' if name == 'unexplained' else 'rows'} {name}")
        for name in ("partial", "doubled", "vanished", "wrong", "errors"):
            if found := getattr(self.findings, name):
                count = f"{len(found)} rows ({min(found)} first)" if isinstance(found, Counter) else found
                self.problems.append(f"a reader saw {count} {name}")
        for fault in self.faults:
            takes = KINDS[fault.kind].takes
            if fault.kind != "drivers" and fault.cost > (self.workers if takes is None else takes):
                self.problems.append(f"{fault.kind}: {fault.cost} units were computed again")


def count_rows(account: Account, rows: pa.Table, expected: Expected) -> None:
    """What is lost, doubled and different among the rows that count in the end."""
    places = [place for place in expected.places(rows).tolist() if place >= 0]
    account.rows = rows.num_rows
    account.lost = expected.rows.num_rows - len(set(places))
    account.doubled = len(places) - len(set(places))
    account.differing = expected.differing(rows)


def take_out_unkept(account: Account, executions: Sequence[Execution]) -> None:
    """Take out of what vanished from before a reader what no unit had called published.

    A file has its name a moment before the disk has it for good; no file system shows a name only then. Who
    looks in that moment sees rows that are computed again if the disk fails there.
    """
    failures = [fault.at for fault in account.faults if fault.kind == "read-only"]
    torn = {
        one.unit
        for one in _evaluations(executions)
        if one.end is None and any(one.begin <= at <= (one.failed or at) for at in failures)
    }
    vanished = account.findings.vanished
    account.unkept = {row for row in vanished if any(_holds(unit, row) for unit in torn)}
    for row in account.unkept:
        del vanished[row]


def _holds(unit: str, row: str) -> bool:
    """Whether a unit, VICTIM/ATTACK/START-STOP, is that of a row, VICTIM/ATTACK/POSITION."""
    (own, _, span), (of, _, position) = unit.rpartition("/"), row.rpartition("/")
    start, stop = map(int, span.split("-"))
    return own == of and start <= int(position) < stop


def _evaluations(executions: Sequence[Execution]) -> list[Execution]:
    return [one for one in executions if not one.unit.startswith("train/")]


def count_units(account: Account, executions: Sequence[Execution]) -> None:
    """Every unit that was computed again, laid at the door of the fault that it was lost to."""
    runs: dict[str, list[Execution]] = {}
    for one in _evaluations(executions):
        runs.setdefault(one.unit, []).append(one)
    account.units, account.executed = len(runs), sum(map(len, runs.values()))
    for each in runs.values():
        for earlier, later in pairwise(each):
            fault = cause(account.faults, earlier, later)
            if fault is not None:
                fault.cost += 1
            elif _overlap(earlier, later) and later.begin - earlier.begin >= COPY_SECONDS:
                account.copies += 1
            else:
                account.unexplained += 1
                if account.unexplained <= NAMED:
                    account.problems.append(f"for no reason: {earlier} and {later}")


def cause(faults: Sequence[Happened], earlier: Execution, later: Execution) -> Happened | None:
    """The fault because of which a unit was run once more: the first that hit its process meanwhile, else the
    first that hit all; else that there were two drivers, of which one did not know of the other's in time.

    What ended well counts as lost until its report can have been, at the latest when it began again.
    """
    until = later.begin
    if earlier.failed is not None:
        until = earlier.failed
    elif earlier.end is not None:
        until = min(until, earlier.end + LAG_SECONDS)
    meanwhile = [
        fault
        for fault in faults
        if fault.at <= until and earlier.begin <= _last(fault) and KINDS[fault.kind].takes != 0
    ]
    own = [fault for fault in meanwhile if fault.pids is not None and earlier.pid in fault.pids]
    every = [fault for fault in meanwhile if fault.pids is None]
    # The nearest to when it began: a driver is soon started again, and what it runs then may meet another.
    every.sort(key=lambda fault: _seconds_between(fault, earlier.begin))
    two = [
        fault
        for fault in faults
        if fault.kind == "drivers" and fault.at <= later.begin and earlier.run_id != later.run_id
    ]
    # What had ended well was lost to nobody, if another driver may not have seen it yet.
    for found in (own, every, two) if earlier.end is None else (two, own, every):
        if found:
            return found[0]
    return None


def _last(fault: Happened) -> float:
    """When the last unit may have begun that is lost to a fault: what hits all does so until it is over."""
    if fault.pids is not None and fault.kind not in LINGERING:
        return fault.at
    return fault.at + LAG_SECONDS if fault.over == fault.at else fault.over


def _seconds_between(fault: Happened, moment: float) -> float:
    """0 while what was taken is not given back yet."""
    return max(fault.at - moment, moment - fault.over, 0.0)


def _overlap(earlier: Execution, later: Execution) -> bool:
    if earlier.failed is not None:
        return False
    return earlier.end is None or earlier.end > later.begin


def time_recoveries(faults: Sequence[Happened], executions: Sequence[Execution]) -> None:
    """Until a unit was through again: in a process that had begun nothing before the fault, where processes
    were ended; else in any, once what was taken was given back."""
    first: dict[int, float] = {}
    for one in executions:
        first.setdefault(one.pid, one.begin)
    for fault in faults:
        killed = fault.kind != "write" and (fault.pids is None or bool(fault.pids))
        ends = [
            one.end
            for one in executions
            if one.end is not None and one.end > fault.over and (not killed or first[one.pid] > fault.at)
        ]
        fault.recovery = min(ends) - fault.at if ends else None
