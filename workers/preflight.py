"""What a machine must have before workers start there: looked at from there, without TensorFlow.

That it runs the same code has been seen before this is imported (`workers.code`).
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from workers.storage import Folder, has_token, redacted
from workers.unit import WorkerSettings

_LITTLE_BYTES = 10**9


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a machine, in words."""

    faults: tuple[str, ...] = ()  # no worker can do its work there
    notes: tuple[str, ...] = ()  # worth knowing


def listing(data_dir: str | None) -> dict[str, int] | None:
    """The datasets in a data folder, `<name>.npz`, with their sizes in bytes; None without a folder."""
    if data_dir is None:
        return None
    try:
        folder = Folder.at(data_dir)
        if not folder.exists():
            return None
        return {info.base_name: info.size for info in folder.files() if info.extension == "npz"}
    except (OSError, ValueError):
        return None


def look(settings: WorkerSettings, data: dict[str, int] | None) -> Findings:
    """Whether storage is what the driver sees, as far as a small file tells, and disks have room.

    `data` is the driver's own `listing` of the data folder, None where it has none.
    """
    faults, notes = [], []
    host = socket.gethostname()
    for option, place in (("--output", settings.output), ("--cache-dir", settings.cache)):
        if why := _not_shared(place, settings.token):
            faults.append(
                f"{redacted(place)} on {host} is not the {option} that the driver writes to ({why}): name "
                "storage that is the same on every machine"
            )
        elif why := _not_writable(place):
            faults.append(f"{redacted(place)} ({option}) cannot be written to on {host}: {redacted(why)}")
    if settings.data_dir is not None:
        here = listing(settings.data_dir)
        shown = f"{redacted(settings.data_dir)} (--data-dir) on {host}"
        if here is None:
            faults.append(f"{shown} is not there: name storage that is the same on every machine")
        elif others := _differing(here, data or {}):
            faults.append(f"{shown} has not what the driver has there ({others}): the data must be the same")
    absent = [redacted(path) for path in settings.paths if not _exists(path)]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        faults.append(f"{', '.join(absent[:3])}{more}, which the grid names, cannot be found on {host}")
    for what, place in _local_folders(settings):
        free = shutil.disk_usage(place).free
        if free < _LITTLE_BYTES:
            notes.append(f"{host} has only {free / 1e6:,.0f} MB left for {what} ({place})")
    return Findings(tuple(faults), tuple(notes))


def _not_shared(place: str, token: str) -> str:
    """Why a place is another than the driver's, or does not show at once what others write; "" if it does."""
    if not token:
        return ""
    if not has_token(place, token):
        return "what it has just written is not there"
    folder = Folder.at(place)
    listed = folder.filesystem.get_file_info(fs.FileSelector(folder.path))
    return "" if any(info.base_name == token for info in listed) else "what it has just written is not listed"


def _not_writable(place: str) -> str:
    """Why nothing can be written there; empty if something can, and is what it was when read."""
    name = f".{uuid.uuid4().hex}.token.tmp"
    try:
        folder = Folder.at(place)
        folder.publish(name, name.encode())
        same = has_token(place, name)
        folder.delete(name)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if same else "what is written is not there afterwards"


def _exists(path: str) -> bool:
    try:
        return Folder.at(path).exists()
    except (OSError, ValueError):
        return False


def _differing(here: dict[str, int], there: dict[str, int]) -> str:
    """What the driver has and this machine has not: a missing dataset might be downloaded as another."""
    names = sorted(name for name, size in there.items() if here.get(name) != size)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _local_folders(settings: WorkerSettings) -> Iterator[tuple[str, str]]:
    yield "temporary files", tempfile.gettempdir()
    for option, place in (("--output", settings.output), ("--cache-dir", settings.cache)):
        if Path(place).is_dir():
            yield option, place
