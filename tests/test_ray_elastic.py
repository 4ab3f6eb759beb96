"""Real Ray with several nodes on this machine: pools that grow and shrink, mixed machines, other code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler.v2.sdk import get_cluster_status

import workers
from orchestrator.errors import BackendError
from orchestrator.run.backends import Backend, make_backend, ray_machines, ray_preflight
from orchestrator.run.options import RunOptions
from orchestrator.run.progress import SweepState
from tests.support.sweeps import Quiet, marked, nothing_left_behind, rows, sweep, times_counted, write_grid
from tests.test_ray_backend import Machines, free_port, until_answered
from workers.unit import WorkerSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True, scope="module")
def mark() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, nothing_left_behind(patch) as mark:
        patch.delenv("RAY_AUTH_MODE", raising=False)  # which a Ray of other tests may have left behind
        yield mark


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """One machine of one CPU; tests add others. It has these tests, as a job would bring them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        machines = Machines()
    yield machines
    machines.cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


class Watching(Quiet):
    """Remembers how many workers there were, one after another, and what was said of the pool."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [0]
        self.pools: list[str] = []

    def show(self, state: SweepState) -> None:
        super().show(state)
        if len(state.workers) != self.sizes[-1]:
            self.sizes.append(len(state.workers))
        if state.pool and state.pool not in self.pools:
            self.pools.append(state.pool)


class Releasing(Watching):
    """Units that wait go on once something is said."""

    def __init__(self, output: Path) -> None:
        super().__init__()
        self.output = output

    def say(self, text: str) -> None:
        super().say(text)
        (self.output / "waiting" / "go").touch()


@contextmanager
def joining(machines: Machines, **node: Any) -> Iterator[Any]:
    """Another machine for as long as this lasts."""
    added = machines.cluster.add_node(**{**machines.node, **node})
    try:
        yield added
    finally:
        machines.cluster.remove_node(added)


@contextmanager
def ray_process(command: str, mark: str, **environment: str) -> Iterator[None]:
    """`ray start` as from a shell, until the end of the block; then all that it has started is gone."""
    others = marked(mark).keys()
    command += f" --block --object-store-memory={80 * 2**20}"
    script = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *command.split()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(script, env={**os.environ, **environment}, **quiet)
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for pid in marked(mark).keys() - others:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """`act` in a thread; what it raises is raised at the end."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join()
    if raised:
        raise raised[0]


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def other_checkout(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH with a robustsweep of our version whose `Worker` is another."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(Path(workers.__file__).parent, folder / "workers")
    file = folder / "workers" / "worker.py"
    file.write_text(file.read_text().replace("_make_runner", "_runner_of_old"))
    return str(folder)


def test_a_pool_grows_with_its_machines_and_lets_go_what_is_idle(
    machines: Machines, tmp_path: Path, output: Path, mark: str, other_checkout: str
) -> None:
    """One machine at the start; one of two CPUs with another checkout joins; at the end one worker is on the
    last unit, and one more stays for the case that it fails."""
    progress = Watching()
    moods = {"a": "wait", "b": "wait_too", "c": "wait_too"}
    own = "tests.support.runners:Misbehaving"
    attacks = [{"name": name, "factory": own, "mood": mood} for name, mood in moods.items()]
    grid = write_grid(tmp_path / "g.yaml", attacks=attacks, examples=40, slice=40)

    def act() -> None:
        until(lambda: list((output / "waiting").glob("*.pid")))
        stack.enter_context(
            ray_process(f"start --address={machines.address} --num-cpus=2", mark, PYTHONPATH=other_checkout)
        )
        until(lambda: len(list((output / "waiting").glob("*.pid"))) == 3)
        (output / "waiting" / "go_too").touch()
        until(lambda: progress.sizes[-1] == 2)
        (output / "waiting" / "go").touch()

    with ExitStack() as stack, meanwhile(act):
        summary = sweep(grid, output, backend="ray", address=machines.address, progress=progress)
    assert (summary.exit_code, summary.state.units_done, progress.said) == (0, 4, [])
    assert progress.sizes[:5] == [0, 1, 2, 3, 2]
    assert progress.pools[0] == "0 of 1 workers on 1 machine"
    assert any(pool.endswith(" of 3 workers on 2 machines (1 joined)") for pool in progress.pools)
    assert progress.pools[-1] == "2 of 2 workers on 2 machines (1 joined)"
    assert times_counted(rows(output)) == {1: 3 * 40 * 2}


def test_a_job_says_which_machine_has_other_code_and_goes_on_without(
    machines: Machines,
    tmp_path: Path,
    output: Path,
    other_checkout: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The code of a job is the job's own: nothing is shipped."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}, "metadata": {}}))
    monkeypatch.chdir(tmp_path)  # which Ray puts on every worker's path
    monkeypatch.setattr(ray_machines, "_PATIENCE_SECONDS", 60.0)
    progress, address = Watching(), machines.address
    with joining(machines, env_vars={"PYTHONPATH": other_checkout}) as bad:
        summary = sweep(
            write_grid(tmp_path / "g.yaml"), output, backend="ray", address=address, progress=progress
        )
        with pytest.raises(
            BackendError, match=r"(?s)2 workers .* the machines carry 1; .* left out is .* runs other code"
        ):
            sweep(tmp_path / "g.yaml", tmp_path / "new", backend="ray", address=address, workers=2)
    assert summary.exit_code == 0
    [said] = progress.said
    assert f"(node {bad.node_id[:8]}) is left out: it runs other code than the driver: " in said
    assert re.search(r"other source files \(\w{8}, not \w{8}: worker\.py\): submit the job with ", said)
    with pytest.raises(BackendError, match="--ship has no meaning in a Ray job"):
        sweep(tmp_path / "g.yaml", tmp_path / "new", backend="ray", address=address, ship=("g.yaml",))


def test_storage_that_is_not_shared_is_said_before_anything_is_written(
    machines: Machines, tmp_path: Path, output: Path
) -> None:
    def elsewhere(options: RunOptions, settings: WorkerSettings, **rest: Any) -> Backend:
        return make_backend(options, replace(settings, output=str(tmp_path / "own")), **rest)

    with pytest.raises(BackendError) as caught:
        sweep(
            write_grid(tmp_path / "g.yaml"), output, backend="ray", address=machines.address, pool=elsewhere
        )
    assert "own on " in str(caught.value)
    assert "is not the --output that the driver writes to (what it has just written is not" in str(
        caught.value
    )
    assert not (output / "grid.yaml").exists()
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_machine_that_does_not_answer_is_not_waited_for(
    machines: Machines, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with storage that hangs."""

    def hanging() -> Callable[..., Any]:
        def question(*_: Any) -> None:
            import time

            time.sleep(600)

        return question

    monkeypatch.setattr(ray_preflight, "_question", hanging)
    monkeypatch.setattr(ray_preflight, "LIMIT_SECONDS", 2.0)
    with pytest.raises(BackendError, match=r"(?s)workers do not start:.*has not answered for 2 s"):
        sweep(write_grid(tmp_path / "g.yaml"), output, backend="ray", address=machines.address)


def test_a_machine_with_a_gpu_has_one_worker_on_it_and_others_beside(
    machines: Machines, tmp_path: Path, output: Path
) -> None:
    """And where TensorFlow does not see the GPU, which it does not here, only the others."""
    grid = write_grid(tmp_path / "g.yaml", ["wait"], examples=60, slice=5)
    asked: dict[str, Any] = {
        "backend": "ray",
        "address": machines.address,
        "use_cpus": True,
        "memory_per_worker": 10**8,
        "resources_per_worker": (("spot", 1.0),),
    }
    with joining(machines, num_cpus=3, num_gpus=1, resources={"spot": 3}):
        summary = sweep(grid, output, runner="tests.support.runners:Telling", **asked)
        told = sorted(file.read_text() for file in (output / "on").iterdir())
        assert (summary.exit_code, told[-1]) == (0, "1 CPUs, 1 GPUs (0)")
        assert len(told) == 3
        assert told[0].startswith("1 CPUs, 0 GPUs (")
        progress, blind = Releasing(tmp_path / "blind"), tmp_path / "blind"
        summary = sweep(grid, blind, runner="tests.support.runners:NeedingGpus", progress=progress, **asked)
        assert summary.exit_code == 0
        [said] = progress.said
        assert (
            "is left out: workers of 1 CPU, 1 GPU, 0.1 GB of memory and 1 spot do not start there: " in said
        )
        assert (
            "MissingGpuError: Ray gives this worker 1 GPU, TensorFlow sees 0 (CUDA_VISIBLE_DEVICES: 0)"
            in said
        )


def test_a_token_that_the_cluster_does_not_have_is_named(
    machines: Machines, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a `ray.init()` of one's own, which leaves RAY_AUTH_MODE=token behind. Ray lets such a driver
    in, and then takes it for dead."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(BackendError, match=r"never ran.* RAY_AUTH_MODE=token, .* RAY_AUTH_MODE=disabled"):
        sweep(write_grid(tmp_path / "g.yaml"), output, backend="ray", address=machines.address)


# -- with an autoscaler -----------------------------------------------------------------------------------


@contextmanager
def autoscaling(folder: Path, mark: str) -> Iterator[str]:
    """The address of a cluster whose head has no CPU, and whose autoscaler brings machines of one CPU."""
    address = f"{get_node_ip_address()}:{(port := free_port())}"
    steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config = {
        "cluster_name": "elastic",
        "max_workers": 3,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 1,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "docker": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {
                "resources": {"CPU": 1, "object_store_memory": 80 * 2**20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 3,
            },
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{step}_commands": [] for step in steps},
    }
    (folder / "autoscaler.json").write_text(json.dumps(config))
    command = (
        f"start --head --port={port} --include-dashboard=false --num-cpus=0 "
        f"--autoscaling-config={folder / 'autoscaler.json'}"
    )
    settings = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    with ray_process(command, mark, **settings):
        until_answered(port)
        yield address


def test_a_cluster_is_asked_for_machines_and_nothing_is_asked_for_at_the_end(
    tmp_path: Path, output: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no machine at first, which is said at once where none was to be asked for, or no such one can
    be had. Of the three that could be had two are: one for the training, and another for what can run beside
    once that is done."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with autoscaling(tmp_path, mark) as address:
        progress, asked = Watching(), {"backend": "ray", "address": address}
        with pytest.raises(BackendError, match="no machine has 1 CPU for a worker; there are: 0 CPUs"):
            sweep(write_grid(tmp_path / "g.yaml"), output, **asked)
        with pytest.raises(
            BackendError, match=r"no machine carries .*autoscaler has no kind of machine with 64 CPUs"
        ):
            sweep(tmp_path / "g.yaml", output, cpus_per_worker=64, max_workers=1, **asked)
        grid = write_grid(tmp_path / "g.yaml", ["wait"], examples=80, slice=20)

        def act() -> None:
            until(lambda: progress.sizes[-1] == 2)
            (output / "waiting" / "go").touch()

        with meanwhile(act):
            summary = sweep(grid, output, max_workers=2, progress=progress, **asked)
        assert (summary.exit_code, progress.said) == (0, [])
        assert "0 of 1 workers on 0 machines, room for 1 asked of the cluster" in progress.pools
        assert max(progress.sizes) == 2
        ray.init(address, logging_level="ERROR", log_to_driver=False)
        try:
            until(lambda: get_cluster_status(address).resource_demands.ray_task_actor_demand == [], 20)
            assert len([node for node in ray.nodes() if node["Alive"]]) == 1 + 2  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()
