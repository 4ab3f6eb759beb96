"""One copy of a large dataset per machine: .npy files in a local folder, mapped by every worker.

The folder is below the system's temporary one (TMPDIR), which clusters put on a machine's own disk. It can
be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers import node
from workers.datasets.base import ARRAYS, DatasetError, DatasetInfo, Reader

SMALL = 32 * 2**20
"""Bytes of images below which every worker simply holds its own."""

_LAYOUT = 1  # raised when what lies in the folder changes
_ROOM = f"datasets-{_LAYOUT}"
_META = "meta.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """A dataset's arrays as they lie on this machine: images mapped, read-only, and labels in memory."""

    arrays: Mapping[str, np.ndarray]
    classes: int
    fingerprint: str


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the four arrays: shape, dtype and bytes of each."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        array = arrays[name]
        digest.update(f"{name} {array.shape} {array.dtype.str}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def find(key: str) -> Mapped | None:
    """What lies on this machine under a key; None when it is not there, or not whole."""
    folder = _path(key)
    try:
        meta = json.loads((folder / _META).read_bytes())
        arrays = {}
        for name in ARRAYS:
            file = folder / f"{name}.npy"
            array = np.load(file, mmap_mode="r") if name.startswith("x") else np.load(file)
            if [list(array.shape), array.dtype.str] != meta["arrays"][name]:
                return None
            arrays[name] = array.view(np.ndarray)
        return Mapped(arrays=arrays, classes=meta["classes"], fingerprint=meta["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build(key: str, info: DatasetInfo, reader: Reader) -> Mapped:
    """Put a dataset there, unless another worker has done so by now. DatasetError."""
    with locked(key):
        if held := find(key):
            return held
        target = _path(key)
        shutil.rmtree(target, ignore_errors=True)  # what a cleaner of temporary files has left of it
        temporary = target.with_name(f"{key}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            _write(temporary, info, reader)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    held = find(key)
    if held is None:
        raise DatasetError(f"{target} was deleted while it was opened; run the command again")
    return held


@contextmanager
def locked(key: str) -> Iterator[None]:
    """Only one process of this machine at a time. DatasetError where the folder belongs to somebody else."""
    with ExitStack() as stack:
        try:
            stack.enter_context(node.locked(_ROOM, key))
        except PermissionError as error:
            raise DatasetError(str(error)) from None
        yield


def _path(key: str) -> Path:
    return node.shared(_ROOM) / key


def _write(folder: Path, info: DatasetInfo, reader: Reader) -> None:
    arrays: dict[str, np.ndarray] = {}

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        path = folder / f"{name}.npy"
        with _room(info, folder.parent):
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            with path.open("r+b") as stream:
                # A full disk is an error here, and a fatal signal once the map is written to.
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        arrays[name] = array
        return array

    reader.read(info, allocate)
    meta = {
        "classes": info.classes,
        "fingerprint": info.content or fingerprint(arrays),
        "arrays": {name: [array.shape, array.dtype.str] for name, array in arrays.items()},
    }
    with _room(info, folder.parent):
        for array in arrays.values():
            array.flush()  # type: ignore[attr-defined]  # a memmap's
        (folder / _META).write_text(json.dumps(meta))


@contextmanager
def _room(info: DatasetInfo, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot write {info.nbytes / 2**30:.2f} GiB of images to {folder}: {error.strerror or error}; "
            "point TMPDIR to a local folder with room"
        ) from error
