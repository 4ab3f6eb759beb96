"""Where, with what and from which state of the code a run was started."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from workers.code import this_code
from workers.machine import available_cpus, cpu_model
from workers.storage import redacted
from workers.version import VERSION

_PACKAGES = ("ray", "tensorflow", "keras", "numpy", "pyarrow", "duckdb", "pydantic", "scikit-learn")


def provenance() -> dict[str, Any]:
    """Goes into the output folder and every shard's footer."""
    return {
        "robustsweep": VERSION,
        "code": this_code().source,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "driver_host": socket.gethostname(),
        "driver_cpu": cpu_model(),
        "driver_cpus": available_cpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": list(map(redacted, sys.argv[1:])),
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
