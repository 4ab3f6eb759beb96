"""Data as folders of images by class: train/<class>/*.png, test/<class>/*.png."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pyarrow import fs

from workers.datasets.base import Allocate, DatasetError, DatasetInfo, Split, size_text, some
from workers.storage import Folder

IMAGES_VERSION = 1
"""Version of what is made of a folder of images; part of its victims' identity."""

SUFFIXES = (".png", ".jpg", ".jpeg")

_FORMATS = ("PNG", "JPEG")
_LITTER = ("thumbs.db", "desktop.ini")
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}  # Pillow's modes that have an unambiguous reading in 8 bits
_SPLITS: tuple[Split, Split] = ("train", "test")
_THREADS = 8

LARGEST = 89_478_485
"""Pixels of an image, by its header, above which it is not decoded: Pillow's bound, of a quarter of a GiB."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _File:
    split: Split
    label: int
    name: str  # below the folder: train/stop/0001.png


@dataclass(frozen=True, slots=True)
class _Look:
    """What one file turned out to be."""

    digest: str  # SHA-256 of its bytes
    size: tuple[int, int] = (0, 0)  # (W, H), as Pillow has it
    channels: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolderReader:
    """Reads a folder of images; the classes are the folders of train/, by name.

    Images must share one size, or are resized to `size` × `size` pixels: bilinear, smoothed when they shrink
    (Pillow's BILINEAR). They are grey if all of them are, else RGB. A rotation in EXIF is not applied.
    """

    name: str
    folder: Folder
    size: int | None = None
    content: str | None = None  # where it is known already

    def key(self) -> str:
        return f"images-{self.content or self.info().content}-{self.size or 'as-is'}"

    def info(self) -> DatasetInfo:
        """Reads every file once: its header is checked, its bytes are hashed."""
        classes, files = self._files()
        looks = self._each(self._look, files)
        problems = [look.problem for look in looks if look.problem]
        if problems:
            raise DatasetError(f"{self.name}: {some(problems)}")
        if self.size is None:
            height, width = self._shared_size(files, looks)
        else:
            height = width = self.size
        counts = Counter(file.split for file in files)
        return DatasetInfo(
            shape=(height, width, max(look.channels for look in looks)),
            classes=len(classes),
            train_size=counts["train"],
            test_size=counts["test"],
            version=IMAGES_VERSION,
            content=_content(files, looks),
        )

    def class_names(self) -> tuple[str, ...]:
        return tuple(self._files()[0])

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        _, files = self._files()
        for split in _SPLITS:
            chosen = [file for file in files if file.split == split]
            allocate(f"y_{split}", (len(chosen),), np.int64)[:] = [file.label for file in chosen]
            images = allocate(f"x_{split}", (len(chosen), *info.shape), np.uint8)

            def decode(place: tuple[int, _File], images: np.ndarray = images) -> str | None:
                row, file = place
                try:
                    images[row] = self._decoded(file, info)
                except Exception as error:  # whatever Pillow's decoders make of a broken file
                    return f"{file.name} cannot be decoded: {error}"
                return None

            problems = self._each(decode, enumerate(chosen))
            if found := [problem for problem in problems if problem]:
                raise DatasetError(f"{self.name}: {some(found)}")

    # -- one file -----------------------------------------------------------------------------------------

    def _look(self, file: _File) -> _Look:
        data = self._bytes(file)
        digest = hashlib.sha256(data).hexdigest()
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                transparent = "transparency" in image.info
                channels = 0 if transparent else _CHANNELS.get(image.mode, 0)
                size, mode = image.size, f"{image.mode} with transparency" if transparent else image.mode
        except Exception as error:  # whatever Pillow's decoders make of a broken file
            reason = "no PNG or JPEG" if "cannot identify" in str(error) else str(error)
            return _Look(digest, problem=f"{file.name} cannot be decoded: {reason}")
        if size[0] * size[1] > LARGEST:
            return _Look(digest, problem=f"{file.name} {too_large(size)}")
        if not channels:
            return _Look(
                digest,
                problem=f"{file.name} is {mode}; grey or RGB in 8 bits, without transparency, is allowed",
            )
        return _Look(digest, size, channels)

    def _decoded(self, file: _File, info: DatasetInfo) -> np.ndarray:
        with Image.open(io.BytesIO(self._bytes(file)), formats=_FORMATS) as opened:
            image = opened.convert("L" if info.shape[2] == 1 else "RGB")
        return resized(np.asarray(image), self.size).reshape(info.shape)

    def _bytes(self, file: _File) -> bytes:
        try:
            return self.folder.read(file.name)
        except OSError as error:
            raise DatasetError(f"{self.folder.join(file.name)} cannot be read: {error}") from error

    # -- all of them --------------------------------------------------------------------------------------

    def _files(self) -> tuple[list[str], list[_File]]:
        """The classes, and every image, by split, class and name."""
        problems = []
        entries = {split: self._listing(split) for split in _SPLITS}
        folders = {
            split: {entry.base_name for entry in entries[split] if _is_class(self.folder, split, entry)}
            for split in _SPLITS
        }
        classes = sorted(folders["train"])
        for split in _SPLITS:
            if not entries[split]:
                problems.append(f"{split}/ is missing or empty; {split}/<class>/*.png is needed")
        if not problems and len(classes) < 2:
            problems.append(f"train/ has {len(classes)} class folders; at least two are needed")
        if entries["test"] and classes:
            if missing := sorted(folders["train"] - folders["test"]):
                problems.append(f"test/ lacks the class folders {some(missing)}, which train/ has")
            if unknown := sorted(folders["test"] - folders["train"]):
                problems.append(f"test/ has the class folders {some(unknown)}, which train/ lacks")
        found: list[_File] = []
        strangers = []
        for split in _SPLITS:
            for entry in entries[split]:
                name = self.folder.relative(entry.path)
                parts = name.split("/")
                if entry.type == fs.FileType.File and len(parts) == 3 and _is_image(name):
                    if parts[1] in folders["train"]:
                        found.append(_File(split, classes.index(parts[1]), name))
                elif entry.type == fs.FileType.File or len(parts) > 2:
                    strangers.append(name)
        if strangers:
            allowed = f"images ({', '.join(SUFFIXES)}) in <split>/<class>/ are allowed"
            problems.append(f"found {some(sorted(strangers))}; {allowed}")
        if not problems:
            full = {file.label for file in found if file.split == "train"}
            if empty := [name for label, name in enumerate(classes) if label not in full]:
                problems.append(f"train/ has no image of class {some(empty)}")
            if not any(file.split == "test" for file in found):
                problems.append("test/ has no image")
        if problems:
            raise DatasetError(*(f"{self.name}: {problem}" for problem in problems))
        found.sort(key=lambda file: (_SPLITS.index(file.split), file.label, file.name))
        return classes, found

    def _listing(self, split: Split) -> list[fs.FileInfo]:
        """Everything below train/ or test/ that is not hidden."""
        selector = fs.FileSelector(self.folder.join(split), recursive=True, allow_not_found=True)
        try:
            entries = self.folder.filesystem.get_file_info(selector)
        except OSError as error:
            raise DatasetError(f"{self.folder.join(split)} cannot be listed: {error}") from error
        return [entry for entry in entries if not _is_hidden(self.folder.relative(entry.path))]

    def _shared_size(self, files: list[_File], looks: list[_Look]) -> tuple[int, int]:
        """The (H, W) of all images."""
        (usual, _), *others = Counter(look.size for look in looks).most_common()
        if others:
            odd = [
                f"{file.name} ({size_text(look.size[::-1])})"
                for file, look in zip(files, looks, strict=True)
                if look.size != usual
            ]
            raise DatasetError(
                f"{self.name}: {len(odd)} of {len(files)} images are not {size_text(usual[::-1])} pixels: "
                f"{some(odd)}; images must share one size, or say size: {min(usual)} to have them resized"
            )
        return usual[1], usual[0]

    def _each(self, work: Callable[[Any], _T], items: Iterable[Any]) -> list[_T]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(work, items))


def too_large(size: tuple[int, int]) -> str:
    """What is said of an image of this (W, H)."""
    return f"has {size[0]:,} × {size[1]:,} pixels; at most {LARGEST:,} are allowed"


def resized(image: np.ndarray, size: int | None) -> np.ndarray:
    """An (H, W) or (H, W, 3) uint8 image at `size` × `size` pixels; as it is without a size."""
    if size is None or image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _content(files: list[_File], looks: list[_Look]) -> str:
    """SHA-256 over names and contents, in order."""
    digest = hashlib.sha256()
    for file, look in zip(files, looks, strict=True):
        digest.update(f"{file.name}\0{look.digest}\n".encode())
    return digest.hexdigest()


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or parts[-1].lower() in _LITTER


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_class(folder: Folder, split: Split, entry: fs.FileInfo) -> bool:
    return entry.type == fs.FileType.Directory and folder.relative(entry.path).count("/") == 1
