"""Real Ray, real processes, no TensorFlow: what happens to workers, and what a person is told."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.node import Node
from ray.exceptions import AuthenticationError

from orchestrator.errors import BackendError
from orchestrator.run import stragglers
from orchestrator.run.backends import Backend, make_backend, ray_cluster, ray_machines
from orchestrator.run.backends import ray as ray_module
from orchestrator.run.options import RunOptions
from orchestrator.run.progress import SweepState
from orchestrator.store.folder import Store
from tests.support.sweeps import Quiet, marked, nothing_left_behind, rows, sweep, times_counted, write_grid
from tests.support.victims import some_victim
from workers.unit import Training, WorkerSettings
from workers.worker import Worker

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True, scope="module")
def mark() -> Iterator[str]:
    """Every process that these tests start is gone after them; all of them bear this mark."""
    with pytest.MonkeyPatch.context() as patch, nothing_left_behind(patch) as mark:
        patch.delenv("RAY_AUTH_MODE", raising=False)  # which a Ray of other tests may have left behind
        yield mark


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def when_one_waits(output: Path) -> int:
    """The id of a process that waits in a unit."""
    while True:
        for path in (output / "waiting").glob("*.pid"):
            return int(path.stem)
        time.sleep(0.02)


def catches(number: int) -> bool:
    """Whether a signal has a handler in this process, as the system sees it."""
    status = Path("/proc/self/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_every_kind_of_trouble_on_one_machine(
    tmp_path: Path, output: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units that raise, kill their process, or hang fail alone; one whose process is killed from outside is
    tried again; the rest is done; nothing of Ray's own talk reaches the terminal, and SIGTERM none of it."""
    end_processes, caught = Node.kill_all_processes, []

    def ending(node: Node, **options: Any) -> None:
        caught.append(catches(signal.SIGTERM))
        end_processes(node, **options)

    monkeypatch.setattr(Node, "kill_all_processes", ending)
    grid = write_grid(tmp_path / "g.yaml", ["raise", "kill", "hang", "wait", "work"], examples=50)
    killed: list[int] = []

    def kill_the_waiting() -> None:
        pid = when_one_waits(output)
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        (output / "waiting" / "go").touch()

    before = sessions()
    killer = threading.Thread(target=kill_the_waiting)
    killer.start()
    summary = sweep(grid, output, backend="ray", workers=2, unit_timeout=6.0)
    killer.join()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (summary.exit_code, summary.state.state) == (1, "finished")
    assert (summary.state.units_done, summary.state.units_failed) == (3, 3)  # with the training
    assert summary.state.retries == 4
    errors = {row.attack_id.split("-")[0]: row.error for row in summary.failures}
    assert errors.pop("raise") == "ValueError: this unit raises"
    assert errors.pop("hang") == "TimeoutError: not through after 6 s (--unit-timeout)"
    assert errors.pop("kill").startswith("its process died (ActorDiedError); its output is in ")
    assert errors == {}
    [record] = [row for row in Store(str(output)).failures() if str(row.attack_id).startswith("wait")]
    assert (record.attempt, record.final) == (1, False)
    assert record.error.startswith("its process died (ActorDiedError)")
    assert times_counted(rows(output)) == {1: 2 * 50 * 2}
    logs = output / "runs" / summary.run_id / "logs"
    assert (logs / f"{record.worker}.log").exists()
    assert "A worker died" in (logs / "driver.log").read_text()
    assert len(killed) == 1
    assert caught == [True]  # Ray has left the process, and its processes are still to end
    assert sessions() == before  # nothing is left in the temporary folder


RAY_FOLDER = Path(tempfile.gettempdir(), f"robustsweep-{os.getuid()}", "ray")


def test_a_straggler_is_overtaken_by_a_copy(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker hangs in a unit; the other does all else, then that one, and nobody waits for the first."""
    monkeypatch.setattr(stragglers, "SECONDS", 0.5)
    grid = write_grid(tmp_path / "g.yaml", ["straggle"], examples=60, slice=10)
    summary = sweep(grid, output, backend="ray", workers=2)
    assert (output / "straggling").exists()
    state = summary.state
    assert (summary.exit_code, state.units_done, state.units_failed, state.retries) == (0, 7, 0, 0)
    assert times_counted(rows(output)) == {1: 120}
    assert Store(str(output)).failures() == []


def sessions() -> set[Path]:
    """The folders of all the Ray that this process has started."""
    return set(RAY_FOLDER.glob(f"session_*_{os.getpid()}"))


def ray_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}


def below_me() -> list[int]:
    """This process and all that it has started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def listeners() -> dict[tuple[str, str], str]:
    """What listens on the network of all that: (address, port) -> its socket's number, from the kernel."""
    sockets = set()
    for pid in below_me():
        with suppress(OSError):
            sockets |= {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].partition(":")
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                ip = ipaddress.ip_address(b"".join(words))
                found[str(getattr(ip, "ipv4_mapped", None) or ip), port] = fields[9]
    return found


def stranger(environment: dict[str, str]) -> str:
    """What a process of this machine is answered that knows where Ray is, but not its token."""
    address = ray.get_runtime_context().gcs_address
    script = f"from ray._raylet import GcsClient; print(GcsClient(address={address!r}).get_all_node_info())"
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=others | environment, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def ray_process(name: str) -> int:
    """The id of the one process of the Ray that this process has started whose command ends so."""
    me, found = str(os.getpid()), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            command = (folder / "cmdline").read_text().replace("\0", " ").split(" ")[0]
            found[folder.name] = command, (folder / "stat").read_text().rpartition(")")[2].split()[1]
    # An agent outlives its raylet by up to a minute, as an orphan.
    named = ((pid, above) for pid, (command, above) in found.items() if command.endswith(name))
    [process] = [pid for pid, above in named if me in (above, found.get(above, ("", ""))[1])]
    return int(process)


def killed(names: Iterable[str], output: Path, *, then: bool = True) -> threading.Thread:
    """Kills one of this process's Ray processes by name, one after another, each once units wait; `then`
    those that wait go on."""

    def kill() -> None:
        for name in names:
            when_one_waits(output)
            for path in (output / "waiting").glob("*.pid"):
                path.unlink()
            os.kill(ray_process(name), signal.SIGKILL)
        if then:
            when_one_waits(output)
            (output / "waiting" / "go").touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["/raylet", "ray::RuntimeEnvAgent"])
def test_when_ray_dies_here_it_is_started_anew(tmp_path: Path, output: Path, name: str) -> None:
    grid = write_grid(tmp_path / "g.yaml", ["wait"], examples=60, slice=10)
    killer, progress = killed([name], output), Quiet()
    summary = sweep(grid, output, backend="ray", workers=2, progress=progress, wait_for_workers=60.0)
    killer.join()
    assert (summary.exit_code, summary.state.units_done, summary.state.units_failed) == (0, 7, 0)
    [said] = progress.said
    assert said.startswith("Ray on this machine died (its process raylet ended with ")
    assert said.endswith("): started anew, 1 of at most 3 times")
    records = Store(str(output)).failures()
    assert {(record.attempt, record.final) for record in records} == {(1, False)}
    assert times_counted(rows(output)) == {1: 120}


def test_when_ray_dies_here_again_and_again_the_sweep_ends(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_module, "_MAX_RESTARTS", 1)
    grid = write_grid(tmp_path / "g.yaml", ["wait"])
    killed(["/raylet", "/raylet"], output, then=False)
    with pytest.raises(BackendError, match=r"Ray on this machine died 2 times, .* raylet ended with SIGKILL"):
        sweep(grid, output, backend="ray", workers=1)
    store = Store(str(output))
    status = store.read_status(store.run_ids()[-1])
    assert (status.state, status.workers) == ("failed", {})
    assert "Ray on this machine died 2 times" in status.note
    assert sweep(grid, output, runner="tests.support.runners:MadeUp").exit_code == 0


class Machines:
    """A cluster of machines with one CPU each, all on this one."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        head = {**self.node, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)

    @property
    def address(self) -> str:
        return str(self.cluster.address)


def test_workers_import_from_beside_the_grid_first(
    tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although Ray puts the driver's working folder on their path. Meanwhile nobody else has a part in it."""
    listening: dict[tuple[str, str], str] = {}
    strangers: list[str] = []

    class Looking(Quiet):
        def show(self, state: SweepState) -> None:
            if not strangers and ray.is_initialized():
                listening.update(listeners())
                wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
                strangers.extend(stranger(environment) for environment in ({}, wrong))
            super().show(state)

    settings = ray_settings()
    folder = tmp_path / "grids"
    folder.mkdir()
    (folder / "nearby_runner.py").write_text("from tests.support.runners import MadeUp as Runner\n")
    (tmp_path / "nearby_runner.py").write_text("raise RuntimeError('not this one')\n")
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options: dict[str, Any] = {"backend": "ray", "runner": "nearby_runner:Runner", "workers": 1}
    summary = sweep(write_grid(folder / "g.yaml"), output, progress=Looking(), **options)
    assert (summary.exit_code, summary.state.cells_done) == (0, 2)
    # Ray's head, its node process twice, its agent, and the driver.
    assert len(listening) >= 5
    assert {address for address, _ in listening} == {"127.0.0.1"}
    assert all("InvalidAuthToken" in said for said in strangers) and len(strangers) == 2
    assert ray_settings() == settings
    # Nobody else can take the place of its sockets, or read its logs.
    assert stat.S_IMODE(RAY_FOLDER.parent.stat().st_mode) == 0o700


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    machines = Machines()
    machines.cluster.add_node(**machines.node)
    yield machines
    machines.cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"workers": 3}, "3 workers of 1 CPU each do not fit: the machines carry 2"),
        ({"cpus_per_worker": 64}, "no machine has 64 CPUs for a worker; there are: 1 CPU"),
        ({"gpus_per_worker": 1.0}, "no machine has 1 CPU and 1 GPU for a worker; there are: 1 CPU"),
    ],
)
def test_what_the_machines_do_not_carry_is_said_at_once(
    machines: Machines, tmp_path: Path, output: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(BackendError, match=expected):
        sweep(write_grid(tmp_path / "g.yaml"), output, backend="ray", address=machines.address, **options)
    assert [path for path in output.rglob("*") if path.is_file()] == []


def test_workers_that_do_not_start_are_one_clear_error(
    machines: Machines, tmp_path: Path, output: Path
) -> None:
    with pytest.raises(
        BackendError, match=r"(?s)workers do not start:.*No module named 'tests\.no_such_module'"
    ):
        sweep(
            write_grid(tmp_path / "g.yaml"),
            output,
            backend="ray",
            address=machines.address,
            runner="tests.no_such_module:Runner",
        )
    store = Store(str(output))
    assert store.read_status(store.run_ids()[-1]).state == "failed"


def test_a_machine_where_no_worker_starts_is_left_out(
    machines: Machines, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a worker has started elsewhere, too. What the others do waits until it is said."""

    class Releasing(Quiet):
        def say(self, text: str) -> None:
            super().say(text)
            (output / "waiting").mkdir(exist_ok=True)
            (output / "waiting" / "go").touch()

    monkeypatch.setattr(ray_machines, "MAX_FAILED_STARTS", 1)
    bad = machines.cluster.add_node(**machines.node, env_vars={"TEST_NO_START": "1"})
    try:
        progress, grid = Releasing(), write_grid(tmp_path / "g.yaml", ["wait"], examples=150)
        options = {"backend": "ray", "address": machines.address, "runner": "tests.support.runners:Picky"}
        summary = sweep(grid, output, progress=progress, workers=3, **options)
        assert (summary.exit_code, summary.state.units_done) == (0, 4)
        [said] = progress.said
        assert f"(node {bad.node_id[:8]}) is left out: workers do not start there: OSError: not here" in said
        assert summary.state.note == said
    finally:
        machines.cluster.remove_node(bad)


def test_a_cluster_whose_head_is_gone_ends_the_run(tmp_path: Path, output: Path, mark: str) -> None:
    """As a person sees it: an exit code of its own, the reason on the terminal and in the status."""
    grid, port, others = write_grid(tmp_path / "g.yaml", ["wait"]), free_port(), marked(mark).keys()
    head = f"start --head --block --port={port} --include-dashboard=false --num-cpus=1"
    script = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *head.split()]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(script, **{**options, "stderr": subprocess.DEVNULL}):
        try:
            until_answered(port)
            run = [sys.executable, "-c", RUN_AGAINST, str(grid), str(output), f"127.0.0.1:{port}"]
            with subprocess.Popen(run, **options, text=True) as driver:
                when_one_waits(output)
                [gcs] = [
                    pid for pid, line in marked(mark).items() if "gcs_server" in line and f"={port}" in line
                ]
                os.kill(gcs, signal.SIGKILL)
                _, err = driver.communicate(timeout=40)
        finally:
            for pid in marked(mark).keys() - others:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert driver.returncode == 3, err
    assert err.startswith("error: the cluster was lost: its head at ")
    assert err.endswith("what is finished is kept, and the same command goes on from there\n")
    store = Store(str(output))
    status = store.read_status(store.run_ids()[-1])
    assert status.state == "failed"
    assert "the cluster was lost" in status.note


RUN_AGAINST = """
import functools, sys
from orchestrator import cli
from orchestrator.run import options
from orchestrator.run.backends import ray, ray_cluster
ray_cluster._SILENT_SECONDS = 3.0
runner = "tests.support.runners:Misbehaving"
options.RunOptions = functools.partial(options.RunOptions, runner=runner)
grid, output, address = sys.argv[1:]
sys.argv = ["robustsweep", "run", grid, "-o", output, "--address", address]
cli.main()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until_answered(port: int) -> None:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)


def test_nothing_at_an_address_is_said_at_once(tmp_path: Path, output: Path) -> None:
    began = time.monotonic()
    with pytest.raises(
        BackendError, match=r"cannot reach Ray at --address 127.0.0.1:\d+: Connection refused"
    ):
        sweep(write_grid(tmp_path / "g.yaml"), output, backend="ray", address=f"127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 10


VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.50.0
    Python: 3.12.1
This process on 10.0.0.1:1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""
TOKEN = "asks for a token, and this process has none, or a wrong one: set RAY_AUTH_MODE=token"
TIMED_OUT = "The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    ("address", "raised", "printed", "expected"),
    [
        (
            "10.0.0.2:6379",
            RuntimeError(VERSIONS),
            "",
            "runs Ray 2.50.0 and Python 3.12.1, this process Ray 2.60.0 and Python 3.11.7: they must be",
        ),
        ("auto", AuthenticationError("Token authentication is enabled but no token was found"), "", TOKEN),
        ("auto", ConnectionError("Failed to connect"), "Unauthenticated: RPC error: InvalidAuthToken", TOKEN),
        ("auto", ConnectionError("Could not find\nany cluster"), "", "auto: Could not find any cluster"),
        ("local", Exception(TIMED_OUT), "", f"Ray does not start on this machine: {TIMED_OUT}"),
    ],
)
def test_why_ray_cannot_be_had_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, raised: Exception, printed: str, expected: str
) -> None:
    def init(*_: object, **__: object) -> None:
        os.write(2, printed.encode())
        raise raised

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_cluster, "_refuses", lambda address: "")
    with pytest.raises(BackendError) as caught:
        ray_cluster.Cluster(address).connect()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_that_answers_again_in_time_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now, refused = [0.0], [""]
    cluster = ray_cluster.Cluster("10.0.0.2:6379", clock=lambda: now[0])
    monkeypatch.setattr(ray_cluster, "_refuses", lambda address: refused[0])
    monkeypatch.setattr(cluster, "_head", ("10.0.0.2", 6379))
    monkeypatch.setattr(cluster, "_here", "n1")
    node = {"NodeID": "n1", "Alive": True, "NodeManagerHostname": "h", "Resources": {}}
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    found = {}
    for now[0], refused[0] in [(5, ""), (10, "no"), (35, "no"), (37, ""), (40, "no"), (68, "no"), (70, "no")]:
        found[now[0]] = cluster.lost()
    assert [second for second, why in found.items() if why] == [70]
    assert found[70] == "its head at 10.0.0.2:6379 has not answered for 30 s"
    refused[0], now[0], node["Alive"] = "", 80, False
    assert "given up the node on this machine" in cluster.lost()


WAITING = """
import os, signal, sys, threading, time
import ray
from orchestrator.run.backends import ray_watchdog
from orchestrator.run.backends.ray_cluster import Cluster
from tests.test_ray_backend import ray_process
ray_watchdog.PATIENCE_SECONDS = 4.0
if __name__ == "__main__":
    cluster = Cluster("local")
    cluster.connect()
    os.kill(ray_process("gcs_server"), signal.SIGKILL)
    print("asked", flush=True)
    ray.nodes()  # as where it dies between a look at it and a question
    time.sleep(30)
    print("answered", flush=True)
"""


def test_a_question_that_nobody_will_answer_ends_the_process_with_a_word(mark: str) -> None:
    """Ray itself ends it after a minute, with exit code 1 and nothing on the terminal."""
    root = Path(__file__).parents[1]
    environment, others = {**os.environ, "PYTHONPATH": str(root)}, marked(mark).keys()
    done = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=60, env=environment, cwd=root
    )
    assert (done.returncode, done.stdout) == (3, "asked\n"), done.stderr
    assert (
        "error: Ray died while it was asked for something (its process gcs_server ended with SIGKILL); "
        "the same command goes on from here" in done.stderr
    )
    for pid in marked(mark).keys() - others:  # Ray's agents outlive it by up to a minute
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_worker_above_its_memory_is_replaced_uncharged(
    machines: Machines, tmp_path: Path, output: Path
) -> None:
    def thrifty(options: RunOptions, settings: WorkerSettings, **rest: Any) -> Backend:
        return make_backend(options, replace(settings, memory_limit=1), **rest)

    grid = write_grid(tmp_path / "g.yaml")
    summary = sweep(grid, output, backend="ray", address=machines.address, workers=1, pool=thrifty)
    assert (summary.exit_code, summary.state.units_done, summary.state.retries) == (0, 3, 0)
    assert Store(str(output)).failures() == []
    assert len(list((output / "runs" / summary.run_id / "logs").glob("worker-*.log"))) >= 3


@pytest.mark.parametrize("graceful", [True, False])
def test_a_lost_machine_is_not_charged_to_its_unit(
    machines: Machines, tmp_path: Path, output: Path, graceful: bool
) -> None:
    """The machine goes while a worker on it waits in a unit: the unit is done elsewhere."""
    node = machines.cluster.add_node(**machines.node)
    grid = write_grid(tmp_path / "g.yaml", ["wait"], examples=60, slice=10)
    lost: list[str] = []

    def lose_the_machine() -> None:
        while len(pids := [int(path.stem) for path in (output / "waiting").glob("*.pid")]) < 3:
            time.sleep(0.02)
        machines.cluster.remove_node(node, allow_graceful=graceful)
        lost.append(node.node_id)
        deadline = time.monotonic() + 60
        # A worker outlives its machine by a moment, and must not end its unit in it.
        while all(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        (output / "waiting" / "go").touch()

    loser = threading.Thread(target=lose_the_machine)
    loser.start()
    summary = sweep(grid, output, backend="ray", address=machines.address, workers=3)
    loser.join()
    assert lost == [node.node_id]
    assert (summary.exit_code, summary.state.units_failed, summary.state.units_done) == (0, 0, 7)
    [record] = Store(str(output)).failures()
    assert (record.attempt, record.final) == (1, False)
    assert record.error.startswith("its machine was lost")
    assert times_counted(rows(output)) == {1: 120}


def test_a_worker_survives_what_its_runner_raises(output: Path) -> None:
    """Whatever a runner raises comes back as a value; what ends the process on purpose does not."""
    unit = Training("u", some_victim("v"))
    worker = Worker(WorkerSettings(str(output), str(output), "r", runner="tests.test_ray_backend:Raising"))
    for raised, line in [(ValueError(), "ValueError"), (SystemExit(3), "SystemExit: 3")]:
        Raising.error = raised
        report = worker.run(unit)
        assert report.error == line
        assert "test_ray_backend.py" in str(report.traceback)
        assert not (report.retire or report.disk_full)
    for full in (
        OSError(28, "No space left on device"),
        RuntimeError("unable to write: Disk quota exceeded"),
    ):
        Raising.error = full
        assert worker.run(unit).disk_full
    Raising.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        worker.run(unit)


class Raising:
    error: BaseException

    def __init__(self, settings: WorkerSettings) -> None: ...

    def __call__(self, unit: object) -> None:
        raise self.error
