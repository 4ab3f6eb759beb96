"""What keeps the Ray that is started here to this person and this run: addresses, a token, a folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from orchestrator.errors import BackendError
from workers.machine import own_folder

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
# Below Ray's folder: the system takes no longer path for a socket than 107 bytes.
_LONGEST = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


@contextmanager
def kept_to_ourselves() -> Iterator[dict[str, Any]]:
    """Let `ray.init` be called, with the options that this yields, so that nobody else has a part in it.

    Ray itself would listen on all of this machine's addresses, keep one token for all that a person ever
    starts in a file, and its sockets and logs in folders where everybody may write. Here it listens on
    loopback; the token is of 256 random bits for this start alone, in the environment of Ray's own processes
    and nowhere else; and its folder is its owner's. AttributeError, rather than an open door, when another
    version of Ray has no such things.
    """
    constants: Any = ray._private.ray_constants
    before, clustered = {name: os.environ.get(name) for name in (_MODE, _TOKEN)}, constants.ENABLE_RAY_CLUSTER
    os.environ |= {_MODE: "token", _TOKEN: secrets.token_hex(32)}
    read_settings()
    constants.ENABLE_RAY_CLUSTER = False  # as on macOS, and the one way to loopback
    started = False
    try:
        yield {"include_dashboard": False, "_temp_dir": str(_folder())}
        started = True
    finally:
        constants.ENABLE_RAY_CLUSTER = clustered
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if not started:
            read_settings()


def read_settings() -> None:
    """Have Ray read its settings and its token anew, which it reads once: when a Ray that was started here
    has ended, what the environment says of clusters to join counts again."""
    native: Any = ray._raylet
    native.Config.initialize("")
    native.AuthenticationTokenLoader.instance().reset_cache()


def _folder() -> Path:
    """Where Ray's sockets and logs go: `ray/` in a folder that only this user can look into."""
    try:
        own = own_folder(Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"))  # as Ray
        if len(os.fsencode(own)) > _LONGEST:
            own = own_folder(Path("/tmp"))
    except OSError as error:
        raise BackendError(f"Ray has no folder of its own on this machine: {error}") from None
    return own / "ray"
