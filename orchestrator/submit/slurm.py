"""A script for Slurm's `sbatch`: one machine where the run starts Ray, or several that make a cluster.

Slurm's own time limit ends the job; it sends SIGTERM some time before, at which a run finishes what it has
begun and stops. The script then puts itself back into the queue, where that is asked for, and the next job
resumes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError
from orchestrator.submit.request import Request

_LONGEST_MARGIN = 65535  # seconds, of sbatch's --signal
_SET_HERE = ("nodes", "ntasks-per-node", "job-name", "time", "signal", "cpus-per-task", "gpus-per-node")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a job asks Slurm for."""

    nodes: int = 1
    cpus: int = 8  # of a node
    gpus: int = 0  # of a node
    seconds: float = 3600.0  # how long it may take
    margin: float = 600.0  # seconds before that, when a run begins to stop
    requeue: bool = False  # until the grid is done
    directives: Sequence[str] = ()  # further ones, as "partition=gpu"
    setup: Sequence[str] = ()  # commands that bring robustsweep onto the PATH

    def check(self) -> None:
        """UserError for what no job could be made of."""
        if self.margin >= self.seconds:
            job = f"a job of --time {self.seconds:.0f} s"
            raise UserError(f"--margin: found {self.margin:.0f} s of {job}; less is allowed")
        if not 1 <= self.margin <= _LONGEST_MARGIN:
            raise UserError(
                f"--margin: found {self.margin:g} s; 1 s to {_LONGEST_MARGIN} s, as Slurm has it, is allowed"
            )
        for directive in self.directives:
            name, _, _ = directive.partition("=")
            if not re.fullmatch(r"[a-z][a-z0-9-]*(=[^\s;#]+)?", directive):
                raise UserError(
                    f'--sbatch: found "{directive}"; NAME or NAME=VALUE of an option of sbatch is allowed, '
                    "such as partition=gpu"
                )
            if name in _SET_HERE:
                raise UserError(f"--sbatch: found {name}, which options of this command set")
        for line in self.setup:
            if "\n" in line:
                raise UserError(
                    "--setup: found several lines; one command is allowed, and it may be repeated"
                )


def script(request: Request, allocation: Allocation) -> str:
    """The text of a batch script for bash."""
    directives = [
        f"job-name={request.name}",
        f"output={request.name}-%j.log",
        "open-mode=append",
        f"nodes={allocation.nodes}",
        "ntasks-per-node=1",
        f"cpus-per-task={allocation.cpus}",
        *([f"gpus-per-node={allocation.gpus}"] if allocation.gpus else []),
        f"time={_clock(allocation.seconds)}",
        f"signal=B:TERM@{int(allocation.margin)}",
        "requeue" if allocation.requeue else "no-requeue",
        *allocation.directives,
    ]
    several = allocation.nodes > 1
    parts = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH --{directive}" for directive in directives),
        "",
        _SIGNAL,
        _END.format(again_when=_AGAIN_WHEN, again=_AGAIN)
        if allocation.requeue
        else _END.format(again_when="", again=""),
        *allocation.setup,
        _PROGRAMS.format(programs="robustsweep ray python" if several else "robustsweep"),
        _CLUSTER if several else "",
        request.command() + (' --address "$address" &' if several else " &"),
        _WAIT,
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts))


_SIGNAL = """set -u
# A run that gets SIGTERM finishes what it has begun, and stops at once at the next. Slurm tells this shell,
# and nobody else.
run= cluster= signals=0
trap 'signals=$((signals + 1)); [ -z "$run" ] || kill -TERM "$run" 2>/dev/null' TERM
"""

_END = """
end() {{  # with an exit code{again_when}
    if [ -n "$cluster" ]; then
        kill "$cluster" 2>/dev/null
        wait "$cluster" 2>/dev/null
        timeout 60 srun --overlap --ntasks-per-node=1 bash -c 'rm -rf "$1"' rm "$folder"
    fi
{again}    exit "$1"
}}
"""
_AGAIN_WHEN = "; 130: there was no time left for all of it"
_AGAIN = '    [ "$1" = 130 ] && [ "$signals" -gt 0 ] && scontrol requeue "$SLURM_JOB_ID" && exit 0\n'

_PROGRAMS = """
for program in {programs}; do
    command -v "$program" >/dev/null && continue
    echo "there is no $program on the PATH: see --setup" >&2
    exit 2
done
"""

_CLUSTER = """
# Ray's head is on this node, the job's first one; a token that this job alone knows lets others in.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
host=$(hostname --ip-address | cut --delimiter=' ' --fields=1)
other=$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)
case $host in  # where its name means the loopback, others reach it at another address, if it has one
    127.* | ::1 | '') host=${other:-${host:-127.0.0.1}} ;;
esac
address=$host:$((20000 + SLURM_JOB_ID % 20000))
folder=$(mktemp --directory /tmp/ray-XXXXXXXX) || exit 2  # Ray's, on each node
ray_on_every_node() {
    local common=(--block --disable-usage-stats) tries
    common+=("--num-cpus=$SLURM_CPUS_PER_TASK" "--num-gpus=${SLURM_GPUS_ON_NODE:-0}")
    if [ "$SLURM_NODEID" = 0 ]; then
        exec ray start --head "--node-ip-address=$1" "--port=$2" --include-dashboard=false \\
            "--temp-dir=$3" "${common[@]}"
    fi
    for tries in {1..150}; do
        ray health-check --address "$1:$2" 2>/dev/null && exec ray start "--address=$1:$2" "${common[@]}"
        sleep 2
    done
    echo "Ray's head does not answer at $1:$2" >&2
    exit 2
}
export -f ray_on_every_node
# The CPUs of the job are not those of its steps, unless they are told so.
srun --overlap --ntasks-per-node=1 "--cpus-per-task=$SLURM_CPUS_PER_TASK" \\
    bash -c 'ray_on_every_node "$@"' ray "${address%:*}" "${address##*:}" "$folder" &
cluster=$!
until ray health-check --address "$address" 2>/dev/null; do
    [ "$signals" = 0 ] || end 130
    kill -0 "$cluster" 2>/dev/null || { echo "Ray has not started" >&2; end 2; }
    sleep 2
done
"""

_WAIT = """run=$!
[ "$signals" = 0 ] || kill -TERM "$run"
# A signal ends a wait, and not the run.
code=127
while :; do
    before=$signals
    wait "$run"
    ended=$?
    [ "$ended" = 127 ] || code=$ended
    [ "$signals" = "$before" ] && break
done
end "$code"
"""


def submission(file: str) -> list[str]:
    """The command that hands the script in."""
    return ["sbatch", file]


def _clock(seconds: float) -> str:
    """As Slurm writes times: 1-02:03:04, days apart."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02d}:{minute:02d}:{second:02d}"
