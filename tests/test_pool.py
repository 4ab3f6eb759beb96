"""How large a pool of workers may be, what is shipped to machines, what is looked at there: without Ray."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers
from orchestrator.commands.parsing import parse_amounts, parse_bytes
from orchestrator.errors import BackendError, UserError
from orchestrator.run.backends import ray_asking, shipping
from orchestrator.run.backends.ray_cluster import Node
from orchestrator.run.backends.ray_machines import Machines
from orchestrator.run.backends.shapes import Shape, carried, described, shapes
from orchestrator.run.backends.shipping import packed
from orchestrator.run.options import RunOptions
from workers import preflight
from workers.code import code_in, this_code
from workers.factories import needed
from workers.storage import token_in
from workers.unit import WorkerSettings

GPU_BOX = {"CPU": 16.0, "GPU": 4.0, "memory": 64e9}
CPU_BOX = {"CPU": 8.0, "memory": 32e9, "spot": 2.0}


def options(**given: Any) -> RunOptions:
    made = RunOptions(output="out", **given)
    made.check()
    return made


@pytest.mark.parametrize(
    ("given", "machines", "expected", "counts"),
    [
        ({}, [CPU_BOX], [Shape("cpu", 1)], [8]),
        ({"cpus_per_worker": 3}, [CPU_BOX], [Shape("cpu", 3)], [2]),
        # A whole GPU each, with its part of the CPUs; a machine without one carries nobody.
        ({}, [GPU_BOX, CPU_BOX], [Shape("gpu", 4, 1.0)], [4, 0]),
        ({"gpus_per_worker": 0.5}, [GPU_BOX], [Shape("gpu", 2, 0.5)], [8]),
        ({"gpus_per_worker": 0}, [GPU_BOX], [Shape("cpu", 1)], [16]),
        # Beside them, one CPU each on what is left.
        ({"use_cpus": True}, [GPU_BOX, CPU_BOX], [Shape("gpu", 1, 1.0), Shape("cpu", 1)], [4 + 12, 8]),
        ({"use_cpus": True}, [CPU_BOX], [Shape("cpu", 1)], [8]),
        ({"memory_per_worker": 10**10}, [CPU_BOX], [Shape("cpu", 1, memory=10**10)], [3]),
        ({"resources_per_worker": (("spot", 1.0),)}, [CPU_BOX, {"CPU": 4.0}], None, [2, 0]),
    ],
)
def test_what_workers_take_and_machines_carry(
    given: dict[str, Any], machines: list[dict[str, float]], expected: list[Shape] | None, counts: list[int]
) -> None:
    found = shapes(options(**given), machines)
    assert expected is None or found == expected
    assert [carried(machine, found) for machine in machines] == counts


@given(
    st.fixed_dictionaries({"CPU": st.integers(0, 40), "GPU": st.integers(0, 8), "memory": st.just(64e9)}),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0]),
    st.booleans(),
)
def test_no_machine_carries_more_than_it_has(
    machine: dict[str, float], cpus: int, gpus: float, beside: bool
) -> None:
    kinds = shapes(options(cpus_per_worker=cpus, gpus_per_worker=gpus, use_cpus=beside), [machine])
    count = carried(machine, kinds)
    first = min(count, kinds[0].fits(machine))
    second = count - first
    assert first * cpus + second * cpus <= machine["CPU"]
    assert first * gpus <= machine["GPU"] + 1e-6
    # And nobody else would fit.
    left = {"CPU": machine["CPU"] - count * cpus, "GPU": machine["GPU"] - first * gpus, "memory": 64e9}
    assert not any(kind.fits(left) for kind in kinds)


def test_a_worker_is_described_by_all_that_it_takes() -> None:
    assert str(Shape("cpu", 1)) == "1 CPU"
    whole = Shape("gpu", 4, 1.0, 8 * 10**9, (("spot", 1.0),))
    assert str(whole) == "4 CPUs, 1 GPU, 8 GB of memory and 1 spot"
    assert described(CPU_BOX, whole) == "8 CPUs, 32.0 GB of memory and 2 spot"
    assert described(GPU_BOX, Shape("gpu", 1, 1.0)) == "16 CPUs and 4 GPUs"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"workers": 2, "max_workers": 4}, "--workers is a pool of one size: it goes without"),
        ({"min_workers": 5, "max_workers": 4}, "--min-workers 5 is more than --max-workers 4"),
        ({"max_workers": 0}, "--max-workers: found 0; 1 or more is allowed"),
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker: found 1.5; a fraction of one or a whole number"),
        ({"resources_per_worker": (("GPU", 1.0),)}, 'found "GPU=1"; a resource of the cluster\'s own'),
        ({"resources_per_worker": (("spot", 1.5),)}, 'found "spot=1.5"; a resource'),
        ({"resources_per_worker": {"GPU": 1.0}}, 'found "GPU=1"; a resource of the cluster\'s own'),
        ({"ship": "nets.py"}, 'ship: found "nets.py"; a list such as ["nets.py"] is allowed'),
        ({"ship": ("nowhere",)}, "--ship: there is no nowhere"),
        ({"backend": "inline", "use_cpus": True}, "--use-cpus has no meaning with --backend inline"),
    ],
)
def test_options_that_make_no_sense_are_said_before_anything_runs(
    given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        options(**given)
    assert expected in str(caught.value)


def test_sizes_and_amounts_are_written_as_people_do() -> None:
    assert [parse_bytes(text, "-") for text in ("4GB", "512 MB", "1.5GiB", "2t")] == [
        4 * 10**9,
        512 * 10**6,
        3 * 2**29,
        2 * 10**12,
    ]
    assert parse_amounts(["spot=1", "fast=0.5"], "-") == (("spot", 1.0), ("fast", 0.5))
    for text in ("4", "GB", "4 apples", "-1GB", ""):
        with pytest.raises(UserError, match="a size such as 4GB or 512MB is allowed"):
            parse_bytes(text, "--memory-per-worker")
    for texts in (["spot"], ["=1"], ["spot=x"], ["spot=nan"], ["spot=0"], ["spot=1", "spot=2"]):
        with pytest.raises(UserError, match="NAME=AMOUNT is allowed, each name once"):
            parse_amounts(texts, "--resources-per-worker")


# What is shipped


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a grid's folder in it, and what lies about in such places."""
    folder = tmp_path / "here"
    for name, text in {
        "nets.py": "import blocks\nfrom pkg_of_mine.deep import thing\nclass Net: ...\n",
        "blocks.py": "import numpy\n",
        "unrelated.py": "",
        "yaml.py": "raise RuntimeError('not the library')\n",
        "pkg_of_mine/__init__.py": "",
        "pkg_of_mine/deep.py": "def thing(): import lazily_needed\n",
        "pkg_of_mine/classes.json": "{}",
        "pkg_of_mine/__pycache__/deep.pyc": "",
        "lazily_needed.py": "import blocks\n",
        "grids/own_attack.py": "import yaml, workers.norms\nclass Own: ...\n",
        "data/digits.npz": "",
        "outputs/mine/shards/x.parquet": "",
        ".git/HEAD": "",
        "venv/pyvenv.cfg": "",
        "venv/lib/thing.py": "",
        "extra/table.csv": "1",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    return folder


def settings(here: Path, *factories: str) -> WorkerSettings:
    places = (str(here / "grids"), str(here))
    out, cache = str(here / "outputs" / "mine"), str(here / "outputs" / "victims")
    return WorkerSettings(
        out, cache, "r", data_dir=str(here / "data"), python_path=places, factories=factories
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_users_modules_import_goes_with_them_and_nothing_else(here: Path) -> None:
    (here / "libs" / "lib_of_mine").mkdir(parents=True)
    (here / "libs" / "lib_of_mine" / "__init__.py").touch()
    ship = ["extra", "libs/lib_of_mine"]
    with packed(settings(here, "nets:Net", "own_attack:Own"), ship) as shipment:
        shipped = files(shipment.folder)
        assert code_in(shipment.folder / "workers") == this_code()
    theirs = {name for name in shipped if name.split("/")[0] not in shipping.OURS}
    assert theirs == {
        "places/0/own_attack.py",
        "places/1/nets.py",
        "places/1/blocks.py",
        "places/1/lazily_needed.py",
        "places/1/pkg_of_mine/__init__.py",
        "places/1/pkg_of_mine/deep.py",
        "places/1/pkg_of_mine/classes.json",
        "extra/table.csv",
        "libs/lib_of_mine/__init__.py",
    }
    assert shipment.python_path == ("places/0", "places/1", "libs")
    assert {"robustsweep/__init__.py", "grids/digits.yaml", "orchestrator/cli.py"} <= shipped
    assert not any("__pycache__" in name for name in shipped)


def test_a_grid_without_objects_of_ones_own_ships_only_our_source(here: Path) -> None:
    with packed(settings(here), []) as shipment:
        assert {name.split("/")[0] for name in files(shipment.folder)} == set(shipping.OURS)
    assert shipment.python_path == ()


def test_a_whole_folder_is_shipped_without_outputs_data_and_what_tools_leave(here: Path) -> None:
    with packed(settings(here), [str(here)]) as shipment:
        shipped = {name.removeprefix("here/") for name in files(shipment.folder)} - {"grids/digits.yaml"}
    assert {"nets.py", "extra/table.csv", "pkg_of_mine/classes.json"} <= shipped
    assert not any(name.startswith(("outputs/mine", "data", ".git", "venv")) for name in shipped)


def test_the_shipped_code_is_imported_where_another_robustsweep_is_on_the_path(here: Path) -> None:
    """And a shipped module is found where the grid's author had it beside the grid."""
    other = here / "other"
    (other / "workers").mkdir(parents=True)
    (other / "workers" / "__init__.py").write_text("raise RuntimeError('the other checkout')\n")
    with packed(settings(here, "own_attack:Own"), []) as shipment:
        script = (
            f"from workers import factories; factories.look_in({[*shipment.python_path]!r}); "
            "print(factories.load('own_attack:Own').__module__, factories.__file__)"
        )
        path = os.pathsep.join([str(shipment.folder), str(other)])
        answer = subprocess.run(
            [sys.executable, "-c", script],
            cwd=shipment.folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        module, file = answer.stdout.split()
        assert module == "own_attack"
        assert Path(file).is_relative_to(shipment.folder)


def test_what_is_too_large_or_has_our_names_is_not_shipped(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "workers").mkdir()
    with (
        pytest.raises(BackendError, match="--ship workers: its name is taken"),
        packed(settings(here), ["workers"]),
    ):
        ...
    monkeypatch.setattr(shipping, "_MOST_BYTES", 10**7)
    (here / "extra" / "weights.bin").write_bytes(bytes(9 * 10**6))
    with (
        pytest.raises(BackendError, match=r"more than 10 MB, which was reached at .*weights.bin \(9.0 MB\)"),
        packed(settings(here), ["extra"]),
    ):
        ...


def test_a_module_with_an_error_is_shipped_all_the_same(here: Path) -> None:
    """Its author is told by the worker that imports it, where a traceback says more."""
    (here / "blocks.py").write_text("def broken(:\n")
    places = [str(here / "grids"), str(here)]
    assert {path.name for path in needed(["nets:Net"], places)[str(here)]} >= {"nets.py", "blocks.py"}


# What is looked at


class GivenCluster:
    def __init__(self) -> None:
        self.there: list[Node] = []

    def answers(self) -> bool:
        return True

    def nodes(self) -> list[Node]:
        return self.there


class GivenPreflight:
    def __init__(self, found: dict[str, preflight.Findings]) -> None:
        self.found = found
        self.asked: list[Node] = []

    @property
    def waiting(self) -> int:
        return len(self.asked)

    def ask(self, node: Node) -> None:
        self.asked.append(node)

    def answers(self, timeout: float) -> list[tuple[Node, preflight.Findings]]:
        asked, self.asked = self.asked, []
        return [(node, self.found.get(node.node_id, preflight.Findings())) for node in asked]


def node(name: str, *, leaving: bool = False, **resources: float) -> Node:
    return Node(name, f"host-{name}", {"CPU": 4.0, **resources}, {}, leaving)


def test_machines_come_are_judged_and_go() -> None:
    gpu, cpu = Shape("gpu", 1, 1.0), Shape("cpu", 1)
    found = {"bad": preflight.Findings(("its disk is another",)), "b": preflight.Findings((), ("full",))}
    cluster, flight = GivenCluster(), GivenPreflight(found)
    machines = Machines(cluster, [gpu, cpu], flight)  # type: ignore[arg-type]

    def good(kind: Shape) -> list[str]:
        return [one.node_id for one in machines.good(kind)]

    cluster.there = [node("a"), node("b", GPU=1.0), node("bad"), node("none", CPU=0.0)]
    notices = machines.look_at_all()
    assert sorted(notice.text for notice in notices) == [
        "host-bad (node bad) is left out: its disk is another",
        "warning: full",
    ]
    assert (good(cpu), machines.capacity, machines.hopeless) == (["a", "b"], 4 + 4, [])
    cluster.there = [node("a"), node("b", GPU=1.0, leaving=True), node("c")]  # b is a spot machine
    assert machines.look() == []
    assert (good(cpu), machines.joined, machines.gone) == (["a", "c"], 1, 1)
    assert machines.told(2, 3, asked=1) == (
        "2 of 4 workers on 3 machines (1 joined, 1 gone), room for 1 asked of the cluster"
    )
    cluster.there = [node("b", GPU=1.0)]
    machines.look()
    assert machines.start_failed("b", gpu, "no CUDA", for_good=True) != []
    assert (good(gpu), good(cpu), machines.hopeless) == ([], ["b"], [])
    machines.start_failed("b", cpu, "no disk")
    machines.started("b", cpu)  # one that starts forgives those that did not
    assert [machines.start_failed("b", cpu, "no disk") for _ in range(2)] == [[], []]
    [notice] = machines.start_failed("b", cpu, "no disk")
    assert notice.text == "host-b (node b) is left out: workers of 1 CPU do not start there: no disk"
    assert machines.hopeless == [
        "host-b (node b): workers of 1 CPU and 1 GPU do not start there: no CUDA",
        "host-b (node b): workers of 1 CPU do not start there: no disk",
    ]


def test_a_machine_is_asked_for_its_code_by_a_function_that_is_sent(tmp_path: Path) -> None:
    """By one process to another that has another checkout, and no way to import this one."""
    other = tmp_path / "workers"
    other.mkdir()
    for file in Path(workers.__file__).parent.glob("*.py"):
        (other / file.name).write_bytes(file.read_bytes())
    (other / "norms.py").write_text("EDITED = True\n")
    from ray import cloudpickle

    from orchestrator.run.backends.ray_preflight import _by_value, _question

    question = cloudpickle.dumps(_question())
    arguments = (_by_value(), None, b"", None)
    (tmp_path / "sent").write_bytes(pickle.dumps((question, arguments)))
    script = (
        "import pickle, json, sys; question, arguments = pickle.load(open('sent', 'rb')); "
        "print(json.dumps(pickle.loads(question)(*arguments)[0])); assert 'workers' not in sys.modules"
    )
    path = str(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert '["norms.py", "' in answer.stdout
    assert code_in(other).differences(this_code())[0].startswith("other source files (")


def test_files_that_differ_are_named(tmp_path: Path) -> None:
    for name in "abcde":
        (tmp_path / f"{name}.py").write_text(name)
    before = code_in(tmp_path)
    assert before.version == "of no version"
    (tmp_path / "b.py").write_text("edited")
    [difference] = code_in(tmp_path).differences(before)
    assert difference.endswith(": b.py)")
    for name in "acde":
        (tmp_path / f"{name}.py").unlink()
    [difference] = code_in(tmp_path).differences(before)
    assert difference.endswith(": a.py, b.py, c.py and 2 more)")


@pytest.fixture
def whole(tmp_path: Path) -> Any:
    """Settings whose output and cache hold the driver's token."""
    out, cache = str(tmp_path / "out"), str(tmp_path / "cache")
    with token_in(out, cache) as token:
        yield WorkerSettings(out, cache, "r", token=token)


def test_a_machine_that_shares_storage_has_no_faults(whole: WorkerSettings) -> None:
    before = files(Path(whole.output)) | files(Path(whole.cache))
    assert preflight.look(whole, None) == preflight.Findings()
    assert files(Path(whole.output)) | files(Path(whole.cache)) == before


def test_storage_that_is_another_is_told_from_one_that_refuses(
    whole: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [fault] = preflight.look(replace(whole, cache=str(tmp_path / "own")), None).faults
    assert "own on " in fault
    assert "is not the --cache-dir that the driver writes to (what it has just written is not there)" in fault

    def refuse(self: Any, name: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied", "s3://key:secret@bucket/out")

    monkeypatch.setattr("workers.storage.Folder.publish", refuse)
    faults = preflight.look(whole, None).faults
    assert len(faults) == 2
    assert "(--output) cannot be written to on " in faults[0]
    assert "secret" not in faults[0]


def test_data_that_differs_is_named(whole: WorkerSettings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    asked = replace(whole, data_dir=str(data))
    assert "(--data-dir) on " in preflight.look(asked, None).faults[0]
    assert "is not there: name storage" in preflight.look(asked, {"mnist.npz": 3}).faults[0]
    data.mkdir()
    (data / "mnist.npz").write_text("abc")
    here = preflight.listing(str(data))
    assert here == {"mnist.npz": 3}
    assert preflight.look(asked, here).faults == ()
    assert preflight.look(asked, None).faults == ()  # the driver has no such folder: only machines do
    (data / "more.npz").write_text("which the driver does not have")
    assert preflight.look(asked, here).faults == ()
    (data / "mnist.npz").write_text("another")
    [fault] = preflight.look(asked, here).faults
    assert "has not what the driver has there (mnist.npz)" in fault
    (data / "mnist.npz").unlink()  # Keras would download it, and it might not be what the driver has
    assert "(mnist.npz)" in preflight.look(asked, here).faults[0]


def test_models_and_data_that_a_grid_names_must_be_there(whole: WorkerSettings, tmp_path: Path) -> None:
    (tmp_path / "here.keras").touch()
    asked = replace(whole, paths=(str(tmp_path / "here.keras"), str(tmp_path / "not.keras"), "s4://no/such"))
    [fault] = preflight.look(asked, None).faults
    assert fault.startswith(f"{tmp_path}/not.keras, s4://no/such, which the grid names, cannot be found on ")


def test_a_disk_that_is_nearly_full_is_a_note(whole: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_LITTLE_BYTES", 10**18)
    found = preflight.look(whole, None)
    assert found.faults == ()
    assert len(found.notes) == 3
    assert "MB left for temporary files" in found.notes[0]


class GivenRay:
    """Tasks that find room once they are in `found`."""

    def __init__(self) -> None:
        self.asked = 0
        self.found: set[int] = set()
        self.cancelled: list[int] = []

    def remote(self, **options: Any) -> Any:
        return lambda function: SimpleNamespace(remote=self.ask)

    def ask(self) -> int:
        self.asked += 1
        return self.asked

    def wait(self, calls: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return [one for one in calls if one in self.found], [one for one in calls if one not in self.found]

    def cancel(self, call: int) -> None:
        self.cancelled.append(call)


def test_room_that_was_asked_for_is_left_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another such task at once would take it again, and no worker would ever start."""
    now, given = [100.0], GivenRay()

    monkeypatch.setattr(ray_asking, "ray", given)
    monkeypatch.setattr(ray_asking.time, "monotonic", lambda: now[0])

    class Growing:
        def can_bring(self, able: Any) -> bool:
            return bool(able({"CPU": 1.0}))

        def refuses(self, needs: Any) -> bool:
            return False

        def answers(self) -> bool:
            return True

    asking = ray_asking.Asking(Growing(), Shape("cpu", 1))  # type: ignore[arg-type]
    asking.ask(9, ready=0)
    assert (asking.count, given.asked) == (4, 4)  # a few at a time
    given.found = {1, 2}
    asking.ask(9, ready=0)
    assert (asking.count, given.asked) == (2, 4)
    now[0] += 4.9
    asking.ask(9, ready=0)
    assert (asking.count, given.asked) == (2, 4)
    now[0] += 0.2
    asking.ask(9, ready=0)
    assert (asking.count, given.asked) == (4, 6)
    asking.ask(1, ready=6)
    assert (asking.count, given.cancelled) == (1, [6, 5, 4])
    asking.stop()
    assert (asking.count, given.cancelled) == (0, [6, 5, 4, 3])
