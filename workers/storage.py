"""A folder on any PyArrow filesystem, and the one way to put a file there: whole or not at all."""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from pyarrow import fs


@contextmanager
def token_in(*locations: str) -> Iterator[str]:
    """Leave a small file in each of the places for as long as this lasts, and yield its name.

    Whoever finds it there sees the same storage (`has_token`). OSError where a place cannot be written to.
    """
    name = f".{uuid.uuid4().hex}.token.tmp"  # as a temporary file: what a crash leaves behind is tidied up
    folders = [Folder.at(location) for location in dict.fromkeys(locations)]
    try:
        for folder in folders:
            folder.publish(name, name.encode())
        yield name
    finally:
        for folder in folders:
            with suppress(OSError):
                folder.delete(name)


def has_token(location: str, name: str) -> bool:
    try:
        return Folder.at(location).read(name) == name.encode()
    except OSError:
        return False


READERS = 16
"""So many threads read small files, or remove them: latency, not bandwidth, is what these cost."""

_PAUSES = (0.1, 0.5, 2.0)  # seconds before another try to read
_LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"']+@")
_SECRET_OPTIONS = re.compile(
    r"([?&][a-z_]*(?:secret|token|password|passwd|key|sig|signature|credential)[a-z_]*=)[^&\s\"']+", re.I
)

_AUTHORISING = re.compile(r"\b((?:bearer|basic)\s+)[A-Za-z0-9+/=_.~-]{8,}", re.I)
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|_KEY$", re.I)
# No path, switch or word that may stand in a text for something else.
_SECRET_VALUE = re.compile(r"(?![/.~])(?=.*\d)[^\s:]{16,}")


_WITHOUT_FOLDERS = ("s3", "gcs")  # an object's name says all; making a folder would be requests for nothing
_ATTEMPTS = 8  # at a request; waits between them are random, up to 1, 2, 4, … and at the most 20 seconds
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 60.0


def _patient(filesystem: fs.S3FileSystem) -> fs.S3FileSystem:
    """The same, with settings that a URI has no words for.

    PyArrow by itself tries again at fixed times, so that all workers whom a busy server has turned away come
    back at once, and gives up after 3 seconds without an answer.
    """
    _, (settings,) = filesystem.__reduce__()  # keys of the environment or the machine are not among them
    changed = {
        # PyArrow's default opens a multipart upload at once, and closing it after an error would publish
        # what had been written so far; delayed, a small file is a single PUT.
        "allow_delayed_open": True,
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": _ANSWER_SECONDS,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    return fs.S3FileSystem(**{**settings, **changed})


def redacted(text: str) -> str:
    """A text that may hold URIs, without what lets one in: user and password, keys and tokens among options.

    Also without what a header authorises with, and without the secrets of this process's environment.
    Whatever is written down or shown goes through this; only the process that opens a URI needs it whole.
    """
    text = _SECRET_OPTIONS.sub(r"\1***", _CREDENTIALS.sub("***@", text))
    text = _AUTHORISING.sub(r"\1***", text)
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and _SECRET_VALUE.fullmatch(value):
            text = text.replace(value, "***")
    return text


def first_line(error: Exception) -> str:
    """An error in one line: the first of its message, or what it is called where it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def absolute(location: str) -> str:
    """A path or URI as other processes need it, who have other working directories."""
    return location if "://" in location else str(Path(location).expanduser().resolve())


@dataclass(frozen=True)
class Folder:
    """A folder, local or on an object store. Nothing is created until something is published."""

    filesystem: fs.FileSystem
    path: str

    @classmethod
    def at(cls, location: str | Path) -> Folder:
        """Open a local path or a URI (`s3://`, `gs://`, `hdfs://`, `file://`, …).

        Raises ValueError when PyArrow does not know the URI's scheme or cannot read it.
        """
        text = str(location)
        if "://" not in text:
            return cls(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text)))
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
            if isinstance(filesystem, fs.S3FileSystem):
                filesystem = _patient(filesystem)
        except Exception as error:  # PyArrow raises ValueError, OSError and NotImplementedError alike
            raise ValueError(redacted(f"cannot open {location}: {error}")) from error
        return cls(filesystem, path.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def join(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    def folder(self, name: str) -> Folder:
        return Folder(self.filesystem, self.join(name))

    def publish(self, name: str, data: bytes | memoryview) -> None:
        """Write `data` under `name` in one step: a reader sees the whole file or none.

        Locally: a temporary name in the same folder, fsync, rename, fsync of the folder. Elsewhere the
        whole file is handed over in one write, which an object store takes as one PUT.
        """
        target = self.join(name)
        if not self.is_local:
            if self.filesystem.type_name not in _WITHOUT_FOLDERS:
                self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            try:
                with self.filesystem.open_output_stream(target, compression=None) as stream:
                    stream.write(data)
            except pa.ArrowInvalid as error:  # what a server answers that did not like a request
                raise OSError(str(error)) from error
            return
        parent = os.path.dirname(target)
        # The temporary name says what it is and never looks like a shard or a record.
        temporary = os.path.join(parent, f".{uuid.uuid4().hex}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            os.makedirs(parent, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def claim(self, name: str) -> bool:
        """Create a file; False where it is there already. On a local disk only one of many can."""
        if not self.is_local:
            if self.exists(name):
                return False
            self.publish(name, b"claimed")
            return True
        target = self.join(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there.

        Other errors are met with patience: a busy server or a lack of file handles may pass.
        """
        for pause in (*_PAUSES, None):
            try:
                with self.filesystem.open_input_file(self.join(name)) as stream:
                    return bytes(stream.read())
            except _LASTING:
                raise
            except OSError:
                if pause is None:
                    raise
                time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    def tail(self, name: str, length: int) -> tuple[bytes, bool]:
        """The last `length` bytes of a file, and whether that is all of it. OSError at the first trouble."""
        with self.filesystem.open_input_file(self.join(name)) as stream:
            size = stream.size()
            start = max(0, size - length)
            return bytes(stream.read_at(size - start, start)), start == 0

    def files(self, name: str = "", *, recursive: bool = False) -> list[fs.FileInfo]:
        """The files below `name`, without temporary ones; an empty list when it does not exist."""
        selector = fs.FileSelector(self.join(name), recursive=recursive, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return [
            info for info in found if info.type == fs.FileType.File and not info.base_name.endswith(".tmp")
        ]

    def folders(self, name: str = "") -> list[str]:
        """The names of the folders in `name`; an empty list when it does not exist."""
        selector = fs.FileSelector(self.join(name), allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return [info.base_name for info in found if info.type == fs.FileType.Directory]

    def leftovers(self, *, older_than: float) -> list[fs.FileInfo]:
        """Temporary files that a writer never came back to, at any depth: untouched for so many seconds."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        latest = datetime.now(UTC) - timedelta(seconds=older_than)
        return [
            info
            for info in self.filesystem.get_file_info(selector)
            if info.base_name.endswith(".tmp") and info.mtime < latest
        ]

    def relative(self, path: str) -> str:
        """A path of this filesystem, as a name below this folder."""
        return path[len(self.path) + 1 :]

    def exists(self, name: str = "") -> bool:
        return bool(self.filesystem.get_file_info(self.join(name)).type != fs.FileType.NotFound)

    def is_link(self, name: str = "") -> bool:
        """Whether it is a symbolic link, which only local folders have."""
        return self.is_local and os.path.islink(self.join(name))

    def delete(self, name: str) -> None:
        self.filesystem.delete_file(self.join(name))
