"""The commands of `robustsweep submit`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from orchestrator.commands.arguments import GridArgument
from orchestrator.commands.parsing import parse_duration
from orchestrator.console import make_console, saying, user_errors, warn
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.submit.request import Request

app = typer.Typer(
    help="Run a grid as a job of Slurm, of Kubernetes with KubeRay, or of Ray; options of `run` go after --.",
    no_args_is_help=True,
)

RunArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- OPTIONS OF RUN]", help="As --set examples=100 --unit-timeout 10m."),
]
JobFileOption = Annotated[
    str | None,
    typer.Option("--out", metavar="FILE", help="The file to write. [default: the job's name, here]"),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the file, write nothing, and hand nothing in.")
]
NodeCpusOption = Annotated[int, typer.Option(min=1, help="CPUs of a machine.")]
NodeGpusOption = Annotated[int, typer.Option(min=0, help="GPUs of a machine.")]


@app.command()
def slurm(
    context: typer.Context,
    grid: GridArgument,
    arguments: RunArguments = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines; several make a Ray cluster.")] = 1,
    cpus: NodeCpusOption = 8,
    gpus: NodeGpusOption = 0,
    time: Annotated[str, typer.Option(metavar="TIME", help="How long the job may take: 4h.")] = "4h",
    margin: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="How long before that it begins nothing new: as long as a unit takes."
        ),
    ] = "10m",
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Queue it again until the grid is done.")
    ] = False,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Another option of sbatch: partition=gpu. Repeat it for more."
        ),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMMAND",
            help='What brings robustsweep onto the PATH: "source .venv/bin/activate". Repeat it for more.',
        ),
    ] = None,
    out: JobFileOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a batch script for Slurm and hand it to sbatch.

    Paths are as they are where it is handed in: the folder has to be there on all machines.
    """
    with user_errors():
        request = _request(context, grid, arguments)
        from orchestrator.submit.slurm import Allocation, script, submission

        allocation = Allocation(
            nodes=nodes,
            cpus=cpus,
            gpus=gpus,
            seconds=parse_duration(time, "--time"),
            margin=parse_duration(margin, "--margin"),
            requeue=requeue,
            directives=sbatch or (),
            setup=setup or (),
        )
        allocation.check()
        _hand_in(script(request, allocation), out or f"{request.name}.sbatch", submission, dry_run=dry_run)


@app.command()
def kubernetes(
    context: typer.Context,
    grid: GridArgument,
    image: Annotated[
        str, typer.Option(help="An image with robustsweep and Ray in it: deploy/ has Dockerfiles.")
    ],
    arguments: RunArguments = None,
    workers: Annotated[
        str,
        typer.Option(metavar="N|MIN:MAX", help="Pods for workers; of a range, as many as there is work for."),
    ] = "1",
    cpus: NodeCpusOption = 8,
    gpus: NodeGpusOption = 0,
    memory: Annotated[str, typer.Option(metavar="QUANTITY", help="Memory of a machine.")] = "16Gi",
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM:PATH", help="A volume claim, and where all pods see it. Repeat it for more."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A secret whose keys become variables, as AWS_ACCESS_KEY_ID."),
    ] = None,
    service_account: Annotated[str | None, typer.Option(metavar="NAME", help="Of the pods.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Where the job goes.")] = None,
    out: JobFileOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a RayJob for KubeRay and hand it to kubectl.

    The output is a URI, or lies on a volume. What the grid names beside itself, models and modules, has to be
    in the image or on a volume too.
    """
    with user_errors():
        request = _request(context, grid, arguments, ray_job=True)
        import importlib.metadata

        from orchestrator.submit.kubernetes import Pods, manifest, parse_range, parse_volumes, submission

        pods = Pods(
            image=image,
            workers=parse_range(workers),
            cpus=cpus,
            gpus=gpus,
            memory=memory,
            volumes=parse_volumes(volume or ()),
            secrets=secret or (),
            service_account=service_account,
            namespace=namespace,
        )
        pods.check(request)
        if request.factories:
            warn([f"{grid} names modules of its own: they must be importable in {image}"])
        text = manifest(request, pods, ray_version=importlib.metadata.version("ray"))
        _hand_in(text, out or f"{request.name}.rayjob.yaml", submission, dry_run=dry_run)


@app.command()
def ray(
    context: typer.Context,
    grid: GridArgument,
    arguments: RunArguments = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Of the cluster's dashboard. [default: as RAY_API_SERVER_ADDRESS says]"
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FOLDER", help="The working folder to fill. [default: the job's name, here]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command, write nothing, and hand nothing in.")
    ] = False,
) -> None:
    """Fill a working folder for a job of a Ray cluster that runs already, and hand it to `ray job submit`.

    The folder has the grid, robustsweep's own source, and the modules that the grid names.
    """
    with user_errors():
        request = _request(context, grid, arguments, ray_job=True)
        from orchestrator.submit.ray_job import submission, write_folder

        if "://" not in request.output and not Path(request.output).is_absolute():
            raise UserError(
                f"--output: found {request.output}, which goes with the folder of the job; a URI such "
                "as s3://bucket/sweep, or an absolute path that all machines share, is allowed"
            )
        if address is not None and not re.fullmatch(r"\w+://[^\s/]\S*|[^\s:/]+:\d+|auto", address):
            raise UserError(
                f'--address: found "{address}"; the URL of a dashboard such as http://head:8265 is allowed'
            )
        folder = out or f"{request.name}.job"
        command = submission(request, folder, address)
        if dry_run:
            print(shlex.join(command))
            return
        write_folder(request, folder)
        _say_handed_in(folder, command)


def _request(
    context: typer.Context, grid: str, arguments: Sequence[str] | None, *, ray_job: bool = False
) -> Request:
    from orchestrator.submit.request import make_request

    root: Any = context.find_root().command
    with saying("reading the grid"):
        return make_request(grid, arguments or (), root.commands["run"], ray_job=ray_job)


def _hand_in(text: str, file: str, submission: Callable[[str], list[str]], *, dry_run: bool) -> None:
    """Write a job's file and hand it in, where the queue's client is here; else say how."""
    if dry_run:
        print(text, end="")
        return
    from orchestrator.submit.request import write_job

    write_job(text, file)
    _say_handed_in(file, submission(file))


def _say_handed_in(file: str, command: Sequence[str]) -> None:
    """Hand in what was written, and pass on what the queue says of it; UserError where it refuses."""
    console = make_console()
    # Ray's is among this Python's programs, which need not be on the path.
    program = shutil.which(command[0]) or shutil.which(command[0], path=os.path.dirname(sys.executable))
    if program is None:
        said = f"wrote {file}; there is no {command[0]} here: hand it in with `{shlex.join(command)}`"
        console.print(escape(said), highlight=False, soft_wrap=True)
        return
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = " ".join(lines[-3:]) or f"exit code {done.returncode}"
        raise UserError(f"wrote {file}, but {command[0]} does not take it: {why}")
    answer = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).strip()
    console.print(escape(f"wrote {file}; {answer}"), highlight=False, soft_wrap=True)
