"""A RayJob of KubeRay, `ray.io/v1`: a cluster for one sweep, which goes when the sweep has ended.

Fields are those of KubeRay's `RayJobSpec` and `RayClusterSpec`. The run itself is the job's entry point, in
the pod of the head, which does no work of a worker's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.errors import UserError
from orchestrator.submit.request import Request

_GRIDS = "/etc/robustsweep"
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTP]i?)?")


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
        if not claim or not path.startswith("/") or claim in found or path in found.values():
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
    """The YAML of the RayJob, after that of a ConfigMap with the grid where that is a file of one's own."""
    documents: list[dict[str, Any]] = []
    metadata: dict[str, Any] = {"name": request.name}
    if pods.namespace:
        metadata["namespace"] = pods.namespace
    command = request.command()
    head = _pod(pods, work=False)
    if request.file:
        name = request.file.name
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {**metadata, "name": f"{request.name}-grid"},
            "data": {name: request.file.read_text("utf-8")},
        }
        documents.append(config)
        command = request.command(f"{_GRIDS}/{name}")
        _mount(head, {"name": "grid", "configMap": {"name": f"{request.name}-grid"}}, _GRIDS)
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
            # Of the cluster; the job's record and its logs stay as long as that.
            "ttlSecondsAfterFinished": 600,
            # A run that lost its cluster resumes in another one.
            "backoffLimit": 2,
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
