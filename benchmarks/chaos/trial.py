"""One trial: a sweep, what befalls it, a reader beside it, and what it all comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.chaos.accounts import (
    Account,
    Happened,
    count_rows,
    count_units,
    take_out_unkept,
    time_recoveries,
)
from benchmarks.chaos.faults import KINDS, Fault, Trial
from benchmarks.chaos.places import Disk, MemoryGroup
from benchmarks.chaos.processes import Machines, alive, descendants, end_all, kill
from benchmarks.chaos.reader import Expected, Findings
from benchmarks.chaos.sabotage import MUTATION, STEPS
from benchmarks.chaos.scene import PACE, VARIABLE, Scene
from orchestrator.store.folder import Store

ROOT = Path(__file__).parents[2]
LIMIT = 1200.0  # seconds: a trial that takes longer hangs
SILENCE = 200.0  # and so does one in which nothing was begun or ended for so long
NODES = 2  # machines of a cluster besides its head
WORKERS = {"ray": 2, "inline": 1, "cluster": NODES + 1}
TICK = 0.02


def write_grid(path: Path, units: int, *, real: bool) -> None:
    """A grid of two victims with two attacks on each, cut into so many units in all."""
    each = units // 4
    size = 6 if real else 3
    grid = {
        "name": "chaos",
        "models": ["small_cnn"],
        "datasets": ["digits"],
        "attacks": [{"name": "bim", "steps": steps} for steps in (3, 5)],
        "epsilons": [0, 0.1],
        "seeds": [0, 1],
        "examples": each * size,
        "slice": size,
        "keep": 0,
        "train": {"epochs": 2},
    }
    path.write_text(yaml.safe_dump(grid))


def rows_of(output: str) -> pa.Table:
    return Store(output).accepted_shards().dataset().to_table()


@dataclass
class Performance:
    """A trial as it goes; `run` returns what it came to."""

    trial: Trial
    folder: Path
    expected: Path
    say: Callable[[str], None]
    scene: Scene = field(init=False)
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.scene = Scene(self.folder / "scene")
        self.scene.make()
        self.account = Account(
            self.trial.name, self.trial.place, WORKERS[self.trial.place], self.trial.mutation
        )
        self.disk = Disk(self.folder / "disk") if self.trial.disk else None
        self.output = str((self.disk.path if self.disk else self.folder) / "out")
        self.cache = self.folder / "victims"
        self.grid = self.folder / "grid.yaml"
        write_grid(self.grid, self.trial.units, real=self.trial.real)
        self.environment = {
            **os.environ,
            VARIABLE: str(self.scene.path),
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "COLUMNS": "200",
            MUTATION: self.trial.mutation,
            PACE: str(self.trial.pace),
        }
        if "clock" in self.trial.kinds:
            self.scene.clock.write_text("0")
        self.group = MemoryGroup() if "memory" in self.trial.kinds else None
        if self.group:
            (self.scene.path / "group").write_text(str(self.group.path))
        self.machines: Machines | None = None
        self.driver: subprocess.Popen[bytes] | None = None
        self.second: subprocess.Popen[bytes] | None = None
        self.compacting: list[subprocess.Popen[bytes]] = []
        self.since_start: list[str] = []  # the kinds of fault that befell the driver that runs
        self.given_back: list[tuple[Happened, Callable[[], None]]] = []
        self.set_back = 0
        self.failed = False  # the last driver said that units have failed for good
        self.ordered = 0  # of units and writes

    # -- processes ----------------------------------------------------------------------------------------

    def start(self, *, inline: bool = False) -> subprocess.Popen[bytes]:
        runner = f"benchmarks.chaos.runner:{'Real' if self.trial.real else 'Light'}"
        where = {"ray": ["--workers", "2"], "cluster": [], "inline": ["--backend", "inline"]}
        options = where["inline" if inline else self.trial.place].copy()
        if self.machines and not inline:
            options += ["--address", self.machines.address]
        if "hang" in self.trial.kinds and not inline:
            options += ["--unit-timeout", "6s"]
        if self.trial.real:  # TensorFlow's sums, and so a network's weights, follow from its threads
            options += ["--cpus-per-worker", "1"]
        if self.failed:
            options += ["--retry-failed"]
        command = ["run", str(self.grid), "-o", self.output, "--cache-dir", str(self.cache)]
        with (self.folder / "drivers.log").open("ab") as log:
            log.write(f"--- {' '.join(options)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos.driver", runner, *command, *options],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def start_reader(self) -> subprocess.Popen[bytes]:
        module = [sys.executable, "-m", "benchmarks.chaos.reader"]
        own = {**os.environ, "PYTHONPATH": str(ROOT), MUTATION: self.trial.mutation}
        with (self.folder / "reader.log").open("ab") as log:
            return subprocess.Popen(
                [*module, self.output, str(self.expected), str(self.folder / "reader.json")],
                cwd=self.folder,
                env=own,
                stdout=log,
                stderr=log,
                stdin=subprocess.PIPE,
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The reader, between two of its steps: it does not see what becomes of the folder meanwhile."""
        self.reader.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.reader.send_signal(signal.SIGCONT)

    def start_machines(self) -> None:
        self.machines = Machines(self.environment, self.folder / "machines.log", NODES)
        self.machines.settle(NODES)

    # -- the whole ----------------------------------------------------------------------------------------

    def run(self) -> Account:
        began = time.monotonic()
        self.reader = self.start_reader()
        try:
            if self.trial.place == "cluster":
                self.start_machines()
            self.driver = self.start()
            self.go_on(began)
        finally:
            for process in self.compacting:
                process.wait(timeout=LIMIT)
            for process in (self.driver, self.second):
                if process is not None and process.poll() is None:
                    process.kill()
            for _, give_back in self.given_back:
                give_back()
            if self.machines:
                self.machines.close()
            end_all(self.scene.path)
        assert self.reader.stdin is not None
        self.reader.stdin.close()
        self.reader.wait(timeout=120)
        self.conclude(time.monotonic() - began)
        if self.disk:
            self.disk.close()
        if self.group:
            self.group.close()
        return self.account

    def go_on(self, began: float) -> None:
        assert self.driver is not None
        pending = deque(self.trial.faults)
        due: float | None = None
        while True:
            lines = self.scene.lines()
            now = time.monotonic()
            last = float(lines[-1][-1]) if lines else began
            if now - began > LIMIT or now - last > SILENCE:
                self.account.problems.append(f"it hangs: {now - began:.0f} s, silent for {now - last:.0f} s")
                return
            code = self.driver.poll()
            alone = self.second is None or self.second.poll() is not None
            if code is not None and (code or alone):
                if not self.ended(code):
                    for fault in pending:
                        self.account.missed[fault.kind] += 1
                    return
                continue
            begun = sum(line[0] == "begin" and not line[1].startswith("train/") for line in lines)
            if pending and begun >= pending[0].after:
                due = due if due is not None else now + pending[0].delay
                if now >= due:
                    fault = pending.popleft()
                    due = None
                    if not self.inflict(fault):
                        self.account.missed[fault.kind] += 1
                    continue
            time.sleep(TICK)

    def ended(self, code: int) -> bool:
        """A driver has ended: as it may? False once the sweep is over, or cannot go on."""
        account = self.account
        account.codes.append(code)
        if self.second is not None and (second := self.second.poll()) is not None:
            account.codes.append(second)
            if second:
                account.problems.append(f"the second driver ended with {second}")
            self.second = None
        given_back = bool(self.given_back)
        for happened, give_back in self.given_back:
            give_back()
            happened.until = time.monotonic()
        self.given_back.clear()
        finals = [one for one in Store(self.output).failures() if one.final]
        allowed = {0, *(code for kind in self.since_start for code in KINDS[kind].codes)}
        if code == 1 and finals and self.since_start:
            allowed.add(1)
        if code not in allowed:
            account.problems.append(f"a driver ended with {code} after {self.since_start or 'nothing'}")
            if len(account.problems) > 3:
                return False
        if code == 0 and not given_back:
            return False
        if len(account.codes) > 3 * len(self.trial.faults) + 3:
            account.problems.append("drivers end again and again")
            return False
        if "head" in self.since_start and self.machines:
            self.machines.close()
            self.start_machines()
        self.failed = code == 1
        self.since_start = []
        self.driver = self.start()
        return True

    def conclude(self, seconds: float) -> None:
        account, executions = self.account, self.scene.executions()
        account.seconds = seconds
        self.take_from_log()
        account.faults.sort(key=lambda fault: fault.at)
        expected = Expected(pq.read_table(self.expected))
        count_rows(account, rows_of(self.output), expected)
        count_units(account, executions)
        time_recoveries(account.faults, executions)
        findings = json.loads((self.folder / "reader.json").read_text())
        account.findings = Findings(**{**findings, "vanished": Counter(findings["vanished"])})
        take_out_unkept(account, executions)
        account.problems += account.findings.notes[:3]
        for name in ("drivers", "reader", "compact"):
            log = self.folder / f"{name}.log"
            if log.exists() and "Traceback" in log.read_text(errors="replace"):
                account.problems.append(f"a traceback was left in {name}.log")
        if codes := [code for process in self.compacting if (code := process.returncode) not in (0, 1)]:
            account.problems.append(f"compact ended with {codes}")
        account.judge()

    def take_from_log(self) -> None:
        """Faults that processes inflict on themselves happened when they say so, if they did."""
        drivers = {int(line[3]) for line in self.scene.lines() if line[0] == "driver"}
        for line in self.scene.lines():
            if line[0] == "broken":
                # The driver's own end takes all with it; in one process it is a unit's write as any other.
                whole = int(line[3]) in drivers and self.trial.place != "inline"
                pids = None if whole else frozenset([int(line[3])])
                self.account.faults.append(Happened("write", float(line[4]), pids))
            if line[0] == "mood":
                pids = frozenset([int(line[3])])
                self.account.faults.append(Happened(line[1], float(line[4]), pids))
        ordered = sum(fault.kind in ("write", "hang", "memory") for fault in self.trial.faults)
        happened = sum(fault.kind in ("write", "hang", "memory") for fault in self.account.faults)
        waiting = ordered - happened - sum(self.account.missed[k] for k in ("write", "hang", "memory"))
        if waiting > 0:
            self.account.missed["ordered, and nobody took it"] += waiting

    # -- faults -------------------------------------------------------------------------------------------

    def inflict(self, fault: Fault) -> bool:
        """False where there is nothing that it could befall."""
        self.ordered += 1
        inflicted = getattr(self, f"_{fault.kind.replace(' ', '_').replace('-', '_')}")(fault)
        if inflicted is None:
            return False
        self.since_start.append(fault.kind)
        if isinstance(inflicted, Happened):
            self.account.faults.append(inflicted)
        self.say(f"{fault.kind} after {fault.after} units")
        return True

    def _happened(self, fault: Fault, pids: frozenset[int] | None) -> Happened:
        return Happened(fault.kind, time.monotonic(), pids)

    def _worker(self, fault: Fault) -> Happened | None:
        drivers = {int(line[3]) for line in self.scene.lines() if line[0] == "driver"}
        ran = dict.fromkeys(one.pid for one in self.scene.executions())
        living = [pid for pid in ran if pid not in drivers and alive(pid)]
        if not living:
            return None
        pid = living[int(fault.choice * len(living))]
        happened = self._happened(fault, frozenset([pid]))
        kill([pid])
        return happened

    def _driver(self, fault: Fault) -> Happened | None:
        assert self.driver is not None
        if self.driver.poll() is not None:
            return None
        happened = self._happened(fault, None)
        self.driver.kill()
        self.driver.wait()
        return happened

    def _cache(self, fault: Fault) -> Happened | None:
        happened = self._driver(fault)
        if happened:
            end_all(self.scene.path)
            for path in self.cache.rglob("*"):
                if path.is_file():
                    path.unlink()
        return happened

    def _of_ray(self, fault: Fault, name: str) -> Happened | None:
        assert self.driver is not None
        pids = [pid for pid, program in descendants(self.driver.pid).items() if program.startswith(name)]
        if not pids:
            return None
        happened = self._happened(fault, None)
        kill(pids[:1])
        return happened

    def _raylet(self, fault: Fault) -> Happened | None:
        return self._of_ray(fault, "raylet")

    def _gcs(self, fault: Fault) -> Happened | None:
        return self._of_ray(fault, "gcs_server")

    def _of_a_machine(
        self, fault: Fault, end: Callable[[subprocess.Popen[bytes], dict[int, str]], None]
    ) -> Happened | None:
        up = self.machines.up() if self.machines else []
        if not up:
            return None
        machine, below = up[int(fault.choice * len(up))]
        happened = self._happened(fault, frozenset(below))
        end(machine, below)
        return happened

    def _node(self, fault: Fault) -> Happened | None:
        return self._of_a_machine(fault, lambda machine, below: kill([*below, machine.pid]))

    def _node_raylet(self, fault: Fault) -> Happened | None:
        def end(machine: subprocess.Popen[bytes], below: dict[int, str]) -> None:
            kill(pid for pid, name in below.items() if name == "raylet")

        return self._of_a_machine(fault, end)

    def _removed(self, fault: Fault) -> Happened | None:
        return self._of_a_machine(fault, lambda machine, below: kill([machine.pid], signal.SIGTERM))

    def _added(self, fault: Fault) -> Happened | None:
        if self.machines is None or len(self.machines.up()) > NODES + 1:
            return None
        self.machines.add()
        return self._happened(fault, frozenset())

    def _head(self, fault: Fault) -> Happened | None:
        pids = self.machines.gcs() if self.machines else []
        if not pids or "head" in self.since_start:
            return None
        happened = self._happened(fault, None)
        kill(pids)
        return happened

    def _full(self, fault: Fault) -> Happened | None:
        if self.given_back or self.disk is None:
            return None
        happened = self._happened(fault, None)
        self.given_back.append((happened, self.disk.fill()))
        return happened

    def _read_only(self, fault: Fault) -> Happened | None:
        if self.given_back or self.disk is None:
            return None
        happened = self._happened(fault, None)
        self.given_back.append((happened, self.disk.read_only(self.paused)))
        return happened

    def _order(self, fault: Fault, where: str) -> bool:
        (self.scene.path / where / f"{fault.kind}.{self.ordered}").touch()
        return True

    def _write(self, fault: Fault) -> bool:
        return self._order(fault, "orders")

    def _hang(self, fault: Fault) -> bool:
        return self._order(fault, "moods")

    def _memory(self, fault: Fault) -> bool:
        return self._order(fault, "moods")

    def _clock(self, fault: Fault) -> Happened:
        self.set_back += 1
        temporary = self.scene.path / "clock.new"
        temporary.write_text(str(self.set_back))
        temporary.replace(self.scene.clock)
        return self._happened(fault, frozenset())

    def _compact(self, fault: Fault) -> Happened:
        self.compacting.append(self._start_compacting())
        return self._happened(fault, frozenset())

    def _compact_killed(self, fault: Fault) -> Happened | None:
        """At one of the first steps of its writing, which it takes itself: it is over in a moment."""
        happened = self._happened(fault, frozenset())
        process = self._start_compacting(steps=1 + int(9 * fault.choice))
        return happened if process.wait(timeout=LIMIT) == -signal.SIGKILL else None

    def _start_compacting(self, *, steps: int = 0) -> subprocess.Popen[bytes]:
        # What is merged goes at once, not after an hour, so that readers have it removed under them.
        command = ["Light", "compact", self.output, "--grace", "0"]
        own = {**self.environment, STEPS: str(steps)}
        with (self.folder / "compact.log").open("ab") as log:
            module = [sys.executable, "-m", "benchmarks.chaos.driver"]
            return subprocess.Popen([*module, *command], env=own, stdout=log, stderr=log)

    def _drivers(self, fault: Fault) -> Happened | None:
        if self.second is not None:
            return None
        self.second = self.start(inline=True)
        return self._happened(fault, frozenset())


def undisturbed(trial: Trial, folder: Path) -> Path:
    """The rows of a sweep that nothing befalls, as a file."""
    target = folder / "expected.parquet"
    if target.exists():
        return target
    calm = Trial("undisturbed", "inline", trial.units, (), real=trial.real)
    performance = Performance(calm, folder / "undisturbed", target, lambda text: None)
    driver = performance.start()
    try:
        if driver.wait(LIMIT):
            raise RuntimeError(f"an undisturbed sweep failed; see {performance.folder}")
    finally:
        with suppress(ProcessLookupError):
            driver.kill()
    pq.write_table(rows_of(performance.output), target)
    return target
