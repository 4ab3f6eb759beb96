"""A RayJob of KubeRay, `ray.io/v1`: a cluster for one sweep, which goes when the sweep has ended.

Fields are those of KubeRay's `RayJobSpec` and `RayClusterSpec`. The run itself is the job's entry point, in
the pod of the head, which does no work of a worker's.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.errors import UserError
from orchestrator.submit.request import Request

_GRIDS = "/etc/robustsweep"
_QUANTITY = re.compile(r"(?=.*[1-9])\d+(\.\d+)?(m|[kMGTP]i?)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # RFC 1123, as of most of what Kubernetes has
_MOST_PODS = 10_000


@dataclass(frozen=True, slots=True)
class Pods:
    """What the cluster is made of."""

    image: str
    workers: tuple[int, int] = (1, 1)  # pods, at least and at most
    cpus: int = 8  # of a pod
    gpus: int = 0
    memory: str = "16Gi"
    volumes: Mapping[str, str] = field(default_factory=dict)  # claim -> where every pod sees it
    secrets: Sequence[str] = ()  # whose keys are variables of the environment
    service_account: str | None = None
    namespace: str | None = None

    def check(self, request: Request) -> None:
        """UserError for what no sweep could run on."""
        least, most = self.workers
        if not 0 <= least <= most or not most:
            raise UserError(
                f"--workers: found {least}:{most}; 0 or more, and as many or more at most, is allowed"
            )
        if most > _MOST_PODS:
            raise UserError(f"--workers: found {most}; {_MOST_PODS:,} pods at most are allowed")
        if not re.fullmatch(r"[^\s-]\S*", self.image):
            raise UserError(
                f'--image: found "{self.image}"; an image such as registry/robustsweep:1 is allowed'
            )
        named = [
            *(("--secret", name) for name in self.secrets),
            *(("--volume", claim) for claim in self.volumes),
            ("--service-account", self.service_account),
            ("--namespace", self.namespace),
        ]
        for option, name in named:
            if name is not None and not _NAME.fullmatch(name):
                raise UserError(
                    f'{option}: found "{name}"; a name of lower-case letters, digits, "-" and "." is allowed'
                )
        if not _QUANTITY.fullmatch(self.memory):
            raise UserError(f'--memory: found "{self.memory}"; a quantity such as 16Gi is allowed')
        for option, place in (
            ("--output", request.output),
            ("--cache-dir", request.cache),
            ("--data-dir", request.data),
        ):
            if place and not self._everywhere(place):
                mounts = ", ".join(self.volumes.values()) or "none is given"
                raise UserError(
                    f"{option}: found {place}, which is in one pod alone; a URI such as s3://bucket/sweep, "
                    f"or a path below a --volume ({mounts}), is allowed"
                )

    def _everywhere(self, place: str) -> bool:
        below = (posixpath.join(mount, "") for mount in self.volumes.values())
        return "://" in place or any(posixpath.normpath(place).startswith(mount) for mount in below)


def parse_range(text: str) -> tuple[int, int]:
    """(least, most) of "4" or "0:16"; UserError for anything else."""
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    if not match:
        raise UserError(f'--workers: found "{text}"; a number of pods, or MIN:MAX, is allowed')
    return int(match[1]), int(match[2] or match[1])


def parse_volumes(texts: Sequence[str]) -> dict[str, str]:
    """Claim -> path, of "CLAIM:PATH" each; UserError for anything else."""
    found: dict[str, str] = {}
    for text in texts:
        claim, _, path = text.partition(":")
        if not claim or not re.fullmatch("/[^:]*", path) or claim in found or path in found.values():
            raise UserError(
                f'--volume: found "{text}"; CLAIM:PATH with an absolute path is allowed, each of them once'
            )
        found[claim] = path
    return found


class _Dumper(yaml.SafeDumper):
    """Lines of a text as lines."""


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)


def manifest(request: Request, pods: Pods, *, ray_version: str) -> str:
    """The YAML of the RayJob, after that of a ConfigMap with the grid where that is a file of one's own.

    Their names are of this manifest alone: both are there until somebody deletes them, and a job that found
    another one's grid would run it.
    """
    documents: list[dict[str, Any]] = []
    own = f"{request.name}-{secrets.token_hex(3)}"  # 47 letters, the most that KubeRay takes
    metadata: dict[str, Any] = {"name": own}
    if pods.namespace:
        metadata["namespace"] = pods.namespace
    command = request.command()
    head = _pod(pods, work=False)
    if request.file:
        name = request.file.name
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**metadata, "name": f"{own}-grid"},
            "data": {name: request.file.read_text("utf-8")},
        }
        documents.append(config)
        command = request.command(f"{_GRIDS}/{name}")
        _mount(head, {"name": "grid", "configMap": {"name": f"{own}-grid"}}, _GRIDS)
    least, most = pods.workers
    grows = least != most
    asks = grows and "--max-workers" not in request.arguments
    each = pods.gpus or pods.cpus  # workers of a pod
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            # Of a cluster that grows, workers are asked for that no machine carries yet.
            "entrypoint": f"{command} --address auto" + (f" --max-workers {each * most}" if asks else ""),
            "shutdownAfterJobFinishes": True,
            # Of the cluster, and with it its logs; the RayJob itself stays until it is deleted.
            "ttlSecondsAfterFinished": 600,
            # A run that lost its cluster resumes in another one, as does one that failed otherwise, which
            # KubeRay does not tell apart: where it is to stop after a while, that would be several times.
            "backoffLimit": 0 if request.stops else 2,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "enableInTreeAutoscaling": grows,
                "headGroupSpec": {
                    # No worker is placed beside the run.
                    "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},
                    "template": {"spec": head},
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": least,
                        "minReplicas": least,
                        "maxReplicas": most,
                        "rayStartParams": {},
                        "template": {"spec": _pod(pods, work=True)},
                    }
                ],
            },
        },
    }
    return yaml.dump_all([*documents, job], Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _pod(pods: Pods, *, work: bool) -> dict[str, Any]:
    resources: dict[str, Any] = (
        {"cpu": str(pods.cpus), "memory": pods.memory} if work else {"cpu": "2", "memory": "8Gi"}
    )
    if work and pods.gpus:
        resources["nvidia.com/gpu"] = str(pods.gpus)
    container: dict[str, Any] = {
        "name": "ray",
        "image": pods.image,
        # A limit that is no request's would let Ray count memory that another pod has.
        "resources": {"requests": resources, "limits": dict(resources)},
    }
    if pods.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in pods.secrets]
    pod: dict[str, Any] = {"containers": [container]}
    if pods.service_account:
        pod["serviceAccountName"] = pods.service_account
    for number, (claim, path) in enumerate(pods.volumes.items()):
        volume = {"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": claim}}
        _mount(pod, volume, path)
    return pod


def _mount(pod: dict[str, Any], volume: dict[str, Any], path: str) -> None:
    pod.setdefault("volumes", []).append(volume)
    pod["containers"][0].setdefault("volumeMounts", []).append({"name": volume["name"], "mountPath": path})


def submission(file: str) -> list[str]:
    """The command that hands the manifest in."""
    return ["kubectl", "create", "--filename", file]
