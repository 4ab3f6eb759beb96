"""Data in one .npz file: x_train, y_train, x_test, y_test, as in Keras' mnist.npz."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from workers.archives import BROKEN, array_header, ensure_memory, ensure_sound
from workers.datasets import checks
from workers.datasets.base import ARRAYS, Allocate, DatasetError, DatasetInfo
from workers.datasets.classes import CLASS_NAMES
from workers.storage import Folder

NPZ_VERSION = 1
"""Version of what is made of an .npz; part of the identity of a user's own."""

_BLOCK = 32 * 2**20  # bytes
_PEEK = 64  # images whose values are looked at before any work starts


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class NpzReader:
    """Reads one .npz file block by block.

    `expected` is what a dataset that robustsweep knows must look like, whatever its sizes; without it the
    file is a user's own, known by its content.
    """

    name: str
    file: Folder  # its path is the file's
    expected: DatasetInfo | None = None
    content: str | None = None  # SHA-256 of the file's bytes, where it is known already

    def key(self) -> str:
        # A file may serve as a known dataset and as a user's own, with other classes.
        return f"{self.name if self.expected else 'npz'}-{self.content or self._hash()}"

    def info(self) -> DatasetInfo:
        """From headers and labels, with a look at the first images."""
        with self._archive() as archive:
            if missing := [name for name in ARRAYS if f"{name}.npy" not in archive.namelist()]:
                has = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
                raise DatasetError(f"{self.file.path} lacks {', '.join(missing)}; it has {has}")
            problems: list[str | None] = []
            headers = {name: _header(archive, name) for name in ARRAYS}
            labels = {}
            for x, y in (ARRAYS[:2], ARRAYS[2:]):
                images, what = headers[x], f"{self.name}: {x}"
                shape = self.expected.shape if self.expected else None
                wrong = checks.images_problems(what, images.shape, images.dtype, shape)
                problems += wrong or [checks.values_problem(what, _first(archive, x))]
                labels[y] = checks.flat_labels(_whole(archive, y))
                classes = self.expected.classes if self.expected else None
                problem = checks.labels_problem(f"{self.name}: {y}", labels[y], classes)
                if not problem and images.shape:
                    problem = checks.count_problem(self.name, x, images.shape[0], y, len(labels[y]))
                problems.append(problem)
        sizes = [checks.image_shape(headers[x].shape)[1:] for x in ("x_train", "x_test")]
        if not any(problems):
            if sizes[0] != sizes[1]:
                problems.append(f"{self.name}: images of shape {sizes[0]} in x_train, {sizes[1]} in x_test")
            if not self.expected:
                problems.append(checks.classes_problem(self.name, labels["y_train"], labels["y_test"]))
        if found := [problem for problem in problems if problem]:
            raise DatasetError(*found)
        height, width, channels = sizes[0]
        stored = {checks.stored_dtype(headers[x].dtype) for x in ("x_train", "x_test")}
        if len(stored) > 1:
            raise DatasetError(
                f"{self.name}: x_train is {headers['x_train'].dtype}, x_test {headers['x_test'].dtype}; "
                "one type for both is allowed"
            )
        largest = max(int(labels[y].max()) for y in labels)
        return DatasetInfo(
            shape=(height, width, channels),
            classes=self.expected.classes if self.expected else largest + 1,
            train_size=len(labels["y_train"]),
            test_size=len(labels["y_test"]),
            dtype=stored.pop() or "",
            version=NPZ_VERSION,
            content=None if self.expected else self._hash(),
        )

    def class_names(self) -> tuple[str, ...]:
        return CLASS_NAMES[self.name] if self.expected else ()

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        with self._archive() as archive:
            for x, y in (ARRAYS[:2], ARRAYS[2:]):
                labels = checks.flat_labels(_whole(archive, y))
                allocate(y, labels.shape, np.int64)[:] = labels
                images = allocate(x, (len(labels), *info.shape), info.dtype)
                start = 0
                for block in _blocks(archive, x):
                    if problem := checks.values_problem(f"{self.name}: {x}", block):
                        raise DatasetError(problem)
                    images[start : start + len(block)] = block.reshape(-1, *info.shape)
                    start += len(block)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        try:
            with self.file.filesystem.open_input_file(self.file.path) as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DatasetError(f"{self.file.path} cannot be read: {error}") from error
        return digest.hexdigest()

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        path = self.file.path
        try:
            with (
                self.file.filesystem.open_input_file(path) as stream,
                zipfile.ZipFile(stream) as archive,
            ):
                ensure_sound(archive, at_once=False)
                yield archive
        except DatasetError:
            raise
        except BROKEN as error:
            raise DatasetError(f"{path} is not a readable .npz: {error}") from error


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[IO[bytes], _Header]]:
    """An array of the archive as a stream, its header read already."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        yield stream, _Header(*array_header(stream, member.file_size))


def _header(archive: zipfile.ZipFile, name: str) -> _Header:
    with _member(archive, name) as (_, header):
        return header


def _whole(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    _header(archive, name)
    member = archive.getinfo(f"{name}.npy")
    ensure_memory(member.file_size)
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def _first(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return next(_blocks(archive, name, _PEEK), np.empty(0, np.uint8))


def _blocks(archive: zipfile.ZipFile, name: str, count: int | None = None) -> Iterator[np.ndarray]:
    """An array in blocks of `count` rows (or of some 32 MiB), floats as float32."""
    with _member(archive, name) as (stream, header):
        dtype = header.dtype
        native: Any = np.uint8 if dtype.kind == "u" else np.float32
        if header.fortran and len(header.shape) > 1:  # its rows do not lie together
            yield _whole(archive, name)[: count or None].astype(native, copy=False)
            return
        row = int(np.prod(header.shape[1:])) * dtype.itemsize
        count = count or max(1, _BLOCK // row)
        for start in range(0, header.shape[0], count):
            rows = min(count, header.shape[0] - start)
            data = stream.read(rows * row)
            if len(data) < rows * row:
                raise EOFError(f"{name} is cut off")
            yield np.frombuffer(data, dtype).reshape(rows, *header.shape[1:]).astype(native, copy=False)
