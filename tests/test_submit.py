"""Jobs of queues: what is written, what is refused, and what a batch script does when it is run."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import UserError
from orchestrator.submit.kubernetes import parse_range, parse_volumes
from orchestrator.submit.slurm import Allocation, _clock

GRID = {"models": ["small_cnn"], "datasets": ["digits"], "attacks": ["fgsm"], "epsilons": [0, 0.1]}


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(GRID))
    return "mine.yaml"


def submit(*words: str, code: int = 0) -> str:
    """What a dry run prints, or the one error that it ends with."""
    result = CliRunner().invoke(app, ["submit", *words])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else " ".join(result.stderr.split())


# -- Slurm ------------------------------------------------------------------------------------------------


def directives(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.partition("=")[::2] for line in lines)


def test_a_script_asks_for_what_was_asked_for(grid: str) -> None:
    script = submit(
        *("slurm", grid, "--cpus", "16", "--gpus", "2", "--time", "26h30m", "--margin", "20m", "--dry-run"),
        *("--sbatch", "partition=gpu", "--sbatch", "exclusive", "--setup", "source env/bin/activate"),
        *("--", "--set", "attacks=[fgsm, bim]", "--unit-timeout", "10m"),
    )
    asked = directives(script)
    assert asked["cpus-per-task"] == "16"
    assert asked["gpus-per-node"] == "2"
    assert (asked["time"], asked["signal"]) == ("1-02:30:00", "B:TERM@1200")
    assert (asked["partition"], asked["exclusive"], "no-requeue" in asked) == ("gpu", "", True)
    assert "\nsource env/bin/activate\n" in script
    assert "robustsweep run mine.yaml --set 'attacks=[fgsm, bim]' --unit-timeout 10m &" in script
    assert "ray start" not in script  # one machine: the run starts Ray by itself
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@functools.cache
def slurm_answers() -> bool:
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=3).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="Slurm is not installed")
@pytest.mark.skipif(shutil.which("sinfo") is None, reason="Slurm is not installed")
@pytest.mark.parametrize("nodes", ["1", "2"])
def test_slurm_takes_the_script(grid: str, nodes: str) -> None:
    if not slurm_answers():
        pytest.skip("no Slurm controller answers")
    script = submit("slurm", grid, "--cpus", "1", "--nodes", nodes, "--requeue", "--dry-run")
    done = subprocess.run(["sbatch", "--test-only"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


class Machine:
    """Where a script runs: programs that write down what they were called with stand for the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()

    def program(self, name: str, body: str) -> None:
        file = self.programs / name
        file.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {self.folder}/calls\n{body}\n')
        file.chmod(0o755)

    def start(self, script: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_CPUS_PER_TASK": "3",
            **variables,
        }
        return subprocess.Popen(
            ["bash", "-c", script], env=environment, cwd=self.folder, text=True, stderr=subprocess.PIPE
        )

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, start: str) -> None:
        deadline = time.monotonic() + 20
        while not any(call.startswith(start) for call in self.calls):
            assert time.monotonic() < deadline, self.calls
            time.sleep(0.05)


# A run that finishes what it has begun when it is told to stop, and one that never has time for it.
DRAINS = "trap 'sleep 0.3; echo drained >> drained; exit 130' TERM; while :; do sleep 0.05; done"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.program("scontrol", "")
    return made


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_job_ends_as_its_run_ends(grid: str, machine: Machine, code: int) -> None:
    machine.program("robustsweep", f"exit {code}")
    script = submit("slurm", grid, "--requeue", "--dry-run")
    assert machine.start(script).wait(20) == code
    assert machine.calls == ["robustsweep run mine.yaml"]


@pytest.mark.parametrize(("requeue", "code"), [((), 130), (("--requeue",), 0)])
def test_before_its_time_is_up_a_job_lets_its_run_finish_what_it_has_begun(
    grid: str, machine: Machine, requeue: tuple[str, ...], code: int
) -> None:
    machine.program("robustsweep", DRAINS)
    job = machine.start(submit("slurm", grid, *requeue, "--dry-run"))
    machine.until("robustsweep")
    time.sleep(0.2)
    job.send_signal(signal.SIGTERM)  # to the shell alone, as Slurm sends it
    assert job.wait(20) == code
    assert (machine.folder / "drained").exists()
    assert machine.calls[1:] == (["scontrol requeue 7"] if requeue else [])


def test_a_unit_that_outlasts_the_margin_is_stopped_and_the_job_queued_again(
    grid: str, machine: Machine
) -> None:
    """Slurm signals a second time, at the limit itself."""
    machine.program(
        "robustsweep",
        "told=0; trap 'told=$((told + 1)); [ $told = 1 ] || exit 130' TERM; while :; do sleep 0.05; done",
    )
    job = machine.start(submit("slurm", grid, "--requeue", "--dry-run"))
    machine.until("robustsweep")
    for _ in range(2):
        time.sleep(0.3)
        assert job.poll() is None
        job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0
    assert machine.calls[1:] == ["scontrol requeue 7"]


def test_a_run_that_was_interrupted_by_a_person_is_not_queued_again(grid: str, machine: Machine) -> None:
    machine.program("robustsweep", "exit 130")
    assert machine.start(submit("slurm", grid, "--requeue", "--dry-run")).wait(20) == 130
    assert machine.calls == ["robustsweep run mine.yaml"]


def test_several_machines_make_a_cluster_that_others_do_not_get_into(grid: str, machine: Machine) -> None:
    machine.program("srun", 'while [ "$1" != bash ]; do shift; done; SLURM_NODEID=0 exec "$@"')
    machine.program(
        "ray",
        f"[ $1 = health-check ] && {{ [ -e {machine.folder}/up ]; exit; }}\n"
        f'echo "token $RAY_AUTH_MODE ${{#RAY_AUTH_TOKEN}}" >> {machine.folder}/calls\n'
        f"touch {machine.folder}/up; exec sleep 100",
    )
    machine.program("robustsweep", "sleep 0.3")
    job = machine.start(submit("slurm", grid, "--nodes", "2", "--dry-run"), SLURM_GPUS_ON_NODE="4")
    assert job.wait(30) == 0
    (started,) = [call for call in machine.calls if call.startswith("ray start")]
    assert "--head" in started
    assert "--num-cpus=3 --num-gpus=4" in started
    assert "--port=20007" in started
    (ran,) = [call for call in machine.calls if call.startswith("robustsweep")]
    assert ran.startswith("robustsweep run mine.yaml --address ") and ran.endswith(":20007")
    assert "token token 64" in machine.calls
    # Nobody is left when the job is over.
    assert subprocess.run(["pgrep", "--full", f"{machine.folder}/programs/ray"]).returncode == 1


def test_a_cluster_that_does_not_start_ends_the_job(grid: str, machine: Machine) -> None:
    machine.program("srun", "exit 1")
    machine.program("ray", "exit 1")
    job = machine.start(submit("slurm", grid, "--nodes", "2", "--dry-run"))
    assert job.wait(30) == 2
    assert not any(call.startswith("robustsweep") for call in machine.calls)


def test_what_is_not_on_the_path_is_said_at_once(grid: str, machine: Machine) -> None:
    """As where --setup was forgotten; nobody waits for a head that cannot start."""
    script = submit("slurm", grid, "--nodes", "2", "--dry-run")
    (machine.programs / "bash").symlink_to(shutil.which("bash") or "bash")
    job = machine.start(script, PATH=str(machine.programs))
    _, said = job.communicate(timeout=20)
    assert job.returncode == 2 and said == "there is no robustsweep on the PATH: see --setup\n"


def test_a_job_that_is_told_to_stop_before_its_cluster_is_there_ends_and_is_queued_again(
    grid: str, machine: Machine
) -> None:
    machine.program("srun", '[[ "$*" != *ray_on_every_node* ]] || exec sleep 100')
    machine.program("ray", "exit 1")
    machine.program("robustsweep", "exit 1")
    job = machine.start(submit("slurm", grid, "--nodes", "2", "--requeue", "--dry-run"))
    machine.until("ray health-check")
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0
    assert machine.calls[-1] == "scontrol requeue 7"
    assert not any(call.startswith("robustsweep") for call in machine.calls)


def test_a_node_that_finds_no_head_does_not_wait_for_ever(grid: str, machine: Machine) -> None:
    machine.program("srun", 'while [ "$1" != bash ]; do shift; done; SLURM_NODEID=1 exec "$@"')
    machine.program("ray", "exit 1")
    machine.program("robustsweep", "exit 1")
    machine.program("sleep", "")
    job = machine.start(submit("slurm", grid, "--nodes", "2", "--dry-run"))
    _, said = job.communicate(timeout=60)
    assert job.returncode == 2
    assert "Ray's head does not answer at " in said and said.endswith("Ray has not started\n")


def test_a_head_is_reached_by_an_address_that_others_know(grid: str, machine: Machine) -> None:
    """A machine may have no other address for its own name than that of the loopback."""
    machine.program("srun", 'while [ "$1" != bash ]; do shift; done; SLURM_NODEID=0 exec "$@"')
    machine.program("ray", f"[ $1 = health-check ] && exit; ls -d /tmp/ray-* >{machine.folder}/at; sleep 100")
    machine.program("hostname", "[ $1 = --ip-address ] && echo 127.0.1.1 || echo 10.1.2.3 172.17.0.1")
    machine.program("robustsweep", "sleep 0.5")
    job = machine.start(submit("slurm", grid, "--nodes", "2", "--dry-run"))
    assert job.wait(30) == 0
    (started,) = [call for call in machine.calls if call.startswith("ray start")]
    assert "--node-ip-address=10.1.2.3" in started
    assert "robustsweep run mine.yaml --address 10.1.2.3:20007" in machine.calls
    (folder,) = [word.partition("=")[2] for word in started.split() if word.startswith("--temp-dir=")]
    assert folder in (machine.folder / "at").read_text() and not Path(folder).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--margin", "0"], "--margin: found 0 s; 1 s to 65535 s"),
        (["--margin", "20h", "--time", "30h"], "--margin: found 72000 s; 1 s to 65535 s"),
        (["--time", "5m", "--margin", "10m"], "--margin: found 600 s of a job of --time 300 s"),
        (["--sbatch", "partition=gpu; rm -rf /"], '--sbatch: found "partition=gpu; rm -rf /"'),
        (["--sbatch", "nodes=3"], "--sbatch: found nodes, which options of this command set"),
        (["--setup", "one\ntwo"], "--setup: found several lines"),
        (["--", "--exampels", "3"], "options of run, after --: No such option: --exampels"),
        (["--", "--workers", "0"], "options of run, after --: "),
        (["--", "--address", "auto"], "found --address; the job has a cluster of its own"),
        (["--", "--backend", "inline"], "found --backend; a job runs on Ray"),
        (["--", "--set", "attacks=[fgms]"], 'did you mean "fgsm"?'),
        (["--", "--stop-after", "never"], "options of run, after --: --stop-after: "),
        (["--", "--max-failures", "200%"], '--max-failures: found "200%"'),
        (["--", "--memory-per-worker", "lots"], "options of run, after --: --memory-per-worker: "),
        (["--", "--workers", "4", "--max-workers", "2"], "--workers is a pool of one size"),
        (["--", "--only", "attack=bim"], "options of run, after --: --only"),
        (["--", "-o", "s3://me:secret@bucket/x"], "s3://***@bucket/x: a job's file can be read by others"),
    ],
)
def test_what_no_job_could_be_made_of_is_said_before_there_is_one(
    grid: str, words: list[str], said: str
) -> None:
    error = submit("slurm", grid, *words, code=2)
    assert said in error
    assert "secret" not in error
    assert not list(Path().glob("*.sbatch"))


def test_times_are_written_as_slurm_reads_them() -> None:
    assert [_clock(s) for s in (0, 59, 3600, 90_061)] == [
        "0-00:00:00",
        "0-00:00:59",
        "0-01:00:00",
        "1-01:01:01",
    ]
    with pytest.raises(UserError, match="--margin"):
        Allocation(seconds=600.0, margin=600.0).check()


# -- handing in -------------------------------------------------------------------------------------------


def test_without_the_queues_client_it_says_how_to_hand_the_file_in(
    grid: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = submit("slurm", grid)
    assert said.split(";")[0] == "wrote robustsweep-mine.sbatch"
    assert "sbatch robustsweep-mine.sbatch" in said
    assert Path("robustsweep-mine.sbatch").read_text() == submit("slurm", grid, "--dry-run")


def test_what_the_queue_says_is_passed_on(
    grid: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{machine.programs}:{os.environ['PATH']}")
    machine.program("sbatch", "echo Submitted batch job 12")
    assert "Submitted batch job 12" in submit("slurm", grid, "--out", "job")
    assert machine.calls == ["sbatch job"]
    machine.program("sbatch", "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1")
    error = submit("slurm", grid, "--out", "job", code=2)
    assert "wrote job, but sbatch does not take it: sbatch: error: invalid partition" in error


# -- Kubernetes -------------------------------------------------------------------------------------------

QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[kMGTP]i?)?$"}
RESOURCES = {"type": "object", "additionalProperties": QUANTITY}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}


def closed(required: list[str], **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = closed(
    ["containers"],
    serviceAccountName=NAME,
    volumes={
        "type": "array",
        "items": closed(
            ["name"],
            name=NAME,
            persistentVolumeClaim=closed(["claimName"], claimName=NAME),
            configMap=closed(["name"], name=NAME),
        ),
    },
    containers={
        "type": "array",
        "minItems": 1,
        "items": closed(
            ["name", "image"],
            name=NAME,
            image={"type": "string", "minLength": 1},
            resources=closed([], requests=RESOURCES, limits=RESOURCES),
            envFrom={"type": "array", "items": closed(["secretRef"], secretRef=closed(["name"], name=NAME))},
            volumeMounts={
                "type": "array",
                "items": closed(
                    ["name", "mountPath"], name=NAME, mountPath={"type": "string", "pattern": "^/"}
                ),
            },
        ),
    },
)
TEMPLATE = closed(["spec"], spec=POD)
METADATA = closed(["name"], name=NAME, namespace=NAME)
# Of ray.io/v1, those fields that are written: names, types and what is needed, as in KubeRay's Go types
# (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go).
RAYJOB = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=METADATA,
    spec=closed(
        [],
        entrypoint={"type": "string"},
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=closed(
            ["headGroupSpec"],
            rayVersion={"type": "string"},
            enableInTreeAutoscaling={"type": "boolean"},
            headGroupSpec=closed(["rayStartParams", "template"], rayStartParams=TEXTS, template=TEMPLATE),
            workerGroupSpecs={
                "type": "array",
                "items": closed(
                    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                    groupName=NAME,
                    replicas=COUNT,
                    minReplicas=COUNT,
                    maxReplicas=COUNT,
                    rayStartParams=TEXTS,
                    template=TEMPLATE,
                ),
            },
        ),
    ),
)


def documents(*words: str) -> list[dict[str, object]]:
    made = list(yaml.safe_load_all(submit("kubernetes", *words)))
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(made[-1], RAYJOB)
    return made


def test_a_rayjob_is_one_and_brings_the_grid(grid: str) -> None:
    config, job = documents(
        *(grid, "--image", "here/robustsweep:1", "--workers", "0:4", "--gpus", "1", "--memory", "24Gi"),
        *("--volume", "data:/data", "--secret", "keys", "--service-account", "sweeper", "--namespace", "lab"),
        *("--dry-run", "--", "-o", "s3://bucket/sweep", "--data-dir", "/data/sets", "--set", "examples=7"),
    )
    assert config["data"] == {"mine.yaml": Path(grid).read_text()}
    name = job["metadata"]["name"]
    assert re.fullmatch("robustsweep-mine-[0-9a-f]{6}", name)
    assert config["metadata"] == {"name": f"{name}-grid", "namespace": "lab"}
    volumes = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {"name": "grid", "configMap": {"name": f"{name}-grid"}} in volumes
    assert job["spec"]["backoffLimit"] == 2
    spec = job["spec"]
    assert isinstance(spec, dict)
    assert spec["entrypoint"] == (
        "robustsweep run /etc/robustsweep/mine.yaml -o s3://bucket/sweep --data-dir /data/sets "
        "--set examples=7 --address auto --max-workers 4"
    )
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 4)
    assert cluster["enableInTreeAutoscaling"] is True
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "8", "memory": "24Gi", "nvidia.com/gpu": "1"}
    assert worker["resources"]["requests"] == worker["resources"]["limits"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    mounts = {mount["mountPath"] for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"/data", "/etc/robustsweep"}


def test_a_shipped_grid_is_in_the_image() -> None:
    (job,) = documents("digits", "--image", "x", "--dry-run", "--", "-o", "s3://bucket/sweep")
    spec = job["spec"]
    assert isinstance(spec, dict)
    assert spec["entrypoint"] == "robustsweep run digits -o s3://bucket/sweep --address auto"
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"] is False


def test_a_rayjob_that_is_to_stop_after_a_while_is_not_tried_again() -> None:
    words = ("digits", "--image", "x", "--dry-run", "--", "-o", "s3://bucket/sweep")
    (job,) = documents(*words, "--stop-after", "1h")
    (other,) = documents(*words)
    assert (job["spec"]["backoffLimit"], other["spec"]["backoffLimit"]) == (0, 2)
    # Another one beside it, or after it, has a name of its own.
    assert job["metadata"]["name"] != other["metadata"]["name"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--output: found outputs/mine, which is in one pod alone"),
        (["--volume", "v:/data", "--", "-o", "/database/x"], "--output: found /database/x"),
        (["--volume", "v:/data", "--", "-o", "/data/../x"], "--output: found /data/../x"),
        (["--", "-o", "s3://b/x", "--cache-dir", "cache"], "--cache-dir: found cache"),
        (["--workers", "4:2", "--", "-o", "s3://b/x"], "--workers: found 4:2"),
        (["--workers", "0", "--", "-o", "s3://b/x"], "--workers: found 0:0"),
        (["--workers", "many", "--", "-o", "s3://b/x"], '--workers: found "many"'),
        (["--memory", "lots", "--", "-o", "s3://b/x"], '--memory: found "lots"'),
        (["--volume", "data", "--", "-o", "s3://b/x"], '--volume: found "data"'),
        (["--volume", "C:/p:q", "--", "-o", "s3://b/x"], '--volume: found "C:/p:q"'),
        (["--volume", "C:/p", "--", "-o", "s3://b/x"], '--volume: found "C"'),
        (["--memory", "0", "--", "-o", "s3://b/x"], '--memory: found "0"'),
        (["--", "-o", "s3://b/x", "--ship", "mine.yaml"], "found --ship, which has no meaning in a Ray job"),
        (["--image", "", "--", "-o", "s3://b/x"], '--image: found ""'),
        (["--secret", "A_b", "--", "-o", "s3://b/x"], '--secret: found "A_b"'),
        (["--namespace", "Foo", "--", "-o", "s3://b/x"], '--namespace: found "Foo"'),
        (["--workers", "99999999999", "--", "-o", "s3://b/x"], "--workers: found 99999999999"),
    ],
)
def test_what_pods_could_not_share_is_refused(grid: str, words: list[str], said: str) -> None:
    assert said in submit("kubernetes", grid, "--image", "x", *words, code=2)


def test_a_grid_with_modules_says_that_the_image_needs_them(grid: str) -> None:
    attack = {"name": "own", "factory": "tests.support.runners:Misbehaving", "mood": "work"}
    Path(grid).write_text(yaml.safe_dump({**GRID, "attacks": [attack]}))
    words = ["submit", "kubernetes", grid, "--image", "x", "--dry-run", "--", "-o", "s3://b/x"]
    assert "must be importable in x" in " ".join(CliRunner().invoke(app, words).stderr.split())


def test_ranges_and_volumes() -> None:
    assert (parse_range("3"), parse_range("0:16")) == ((3, 3), (0, 16))
    assert parse_volumes(["a:/x", "b:/y"]) == {"a": "/x", "b": "/y"}
    for wrong in (["a:x"], [":/x"], ["a:/x", "a:/y"], ["a:/x", "b:/x"]):
        with pytest.raises(UserError, match="--volume"):
            parse_volumes(wrong)


# -- a job of Ray -----------------------------------------------------------------------------------------


@pytest.fixture
def own_grid(grid: str) -> str:
    """A grid that names a module beside it, which imports another one."""
    Path("my_nets.py").write_text("from my_width import WIDTH\n\ndef build(**options):\n    return WIDTH\n")
    Path("my_width.py").write_text("WIDTH = 32\n")
    Path("unrelated.py").write_text("raise AssertionError\n")
    Path(grid).write_text(yaml.safe_dump({**GRID, "models": [{"name": "own", "factory": "my_nets:build"}]}))
    return grid


def test_a_job_of_ray_has_all_that_it_needs_in_one_folder(
    own_grid: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{machine.programs}:{os.environ['PATH']}")
    machine.program("ray", "printf '\\033[32msubmitted\\033[39m'")
    output = str(machine.folder / "out")
    words = ["--address", "http://head:8265", "--", "-o", output, "--set", "examples=7"]
    said = submit("ray", own_grid, *words)
    assert said.strip() == "wrote robustsweep-mine.job; submitted"
    (call,) = machine.calls
    assert call == (
        "ray job submit --address http://head:8265 --no-wait --working-dir robustsweep-mine.job -- "
        f"python -m robustsweep run mine.yaml -o {output} --set examples=7 --address auto"
    )
    folder = Path("robustsweep-mine.job")
    there = {path.name for path in folder.iterdir()}
    assert {"mine.yaml", "my_nets.py", "my_width.py", "workers", "orchestrator", "robustsweep"} <= there
    assert "unrelated.py" not in there
    # What runs there is what lies there.
    planned = subprocess.run(
        [sys.executable, "-c", "import workers, my_width; print(workers.__path__[0], my_width.WIDTH)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert planned.stdout.split() == [str(folder.resolve() / "workers"), "32"]

    submit("ray", own_grid, *words)  # again: the folder is this command's own, and is filled anew
    assert len(machine.calls) == 2


def test_a_folder_of_somebody_elses_is_left_alone(own_grid: str) -> None:
    Path("mine").mkdir()
    Path("mine", "precious").touch()
    error = submit("ray", own_grid, "--out", "mine", "--", "-o", "s3://b/x", code=2)
    assert "--out: mine is there, and no job's folder" in error
    assert Path("mine", "precious").exists()


def test_an_output_that_goes_with_the_job_is_refused(own_grid: str) -> None:
    assert "--output: found outputs/mine, which goes with the folder of the job" in submit(
        "ray", own_grid, code=2
    )
    printed = submit("ray", own_grid, "--dry-run", "--", "-o", "s3://b/x")
    assert printed.startswith("ray job submit --no-wait --working-dir robustsweep-mine.job -- python -m")
    assert not Path("robustsweep-mine.job").exists()


# -- deploy/ ----------------------------------------------------------------------------------------------

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_rays_launcher_takes_what_we_ship_for_a_cloud(cloud: str) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load((DEPLOY / f"{cloud}.yaml").read_text()))
    util.validate_config(config)  # against Ray's own schema
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0
    assert config["available_node_types"]["worker"]["min_workers"] == 0


def test_the_image_has_every_package() -> None:
    """What is not copied is not there, and what the builder is not given cannot be copied."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]}
    packages = {path.parent.name for path in DEPLOY.parent.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= copied
    assert all((DEPLOY.parent / name).exists() for name in copied)
    given = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in given if line.startswith("!")}
