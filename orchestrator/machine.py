"""What this machine has, as far as this process may use it, and what it runs."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from workers.hardware import cpu_model
from workers.version import VERSION

_PACKAGES = ("ray", "tensorflow", "keras", "numpy", "pyarrow", "duckdb", "pydantic", "scikit-learn")


def available_cpus() -> int:
    """CPUs this process may use: its affinity, and its container's quota where there is one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cpus


def physical_memory() -> int:
    """Bytes of memory of this machine, or of its container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def provenance() -> dict[str, Any]:
    """Where and with what a run was started; goes into the output folder and every shard's footer."""
    return {
        "robustsweep": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "driver_host": socket.gethostname(),
        "driver_cpu": cpu_model(),
        "driver_cpus": available_cpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": sys.argv[1:],
        **git_state(Path.cwd()),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """The commit of the repository around `folder` and whether it has changes; nulls where there is none."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
