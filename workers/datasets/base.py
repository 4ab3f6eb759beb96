"""What a dataset is, and what it takes to be read as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from workers.unit import DatasetSpec

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
Split = Literal["train", "test"]
Shape = tuple[int, int, int]  # (H, W, C)

Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]
"""Makes room for one of `ARRAYS`, of a shape and dtype, in memory or in a file that several workers map."""


class DatasetError(Exception):
    """A dataset that cannot be had or is not what it should be; each of `problems` says what to do."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset before its images are read."""

    shape: Shape
    classes: int
    train_size: int
    test_size: int
    dtype: str = "uint8"  # of the stored images: uint8 in [0, 255] or float32 in [0, 1]
    version: int = 1  # of what is made of the data
    content: str | None = None  # SHA-256 of data given by path

    @property
    def nbytes(self) -> int:
        """Bytes of all images as stored."""
        images = self.train_size + self.test_size
        return images * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images NHWC, uint8 in [0, 255] or float32 in [0, 1] as stored; labels int64 in [0, classes).

    The arrays may be read-only, and shared with other processes.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    shape: Shape
    classes: int
    fingerprint: str  # SHA-256 of the arrays; of the files, for data given by path
    class_names: tuple[str, ...] = ()  # in the order of labels; empty: the data do not say

    def images(self, split: Split, indices: np.ndarray | slice) -> np.ndarray:
        """(N, H, W, C) float32 in [0, 1]."""
        return scaled(self.stored(split, indices))

    def stored(self, split: Split, indices: np.ndarray | slice) -> np.ndarray:
        """(N, H, W, C), as stored: uint8 in [0, 255] or float32 in [0, 1]."""
        return (self.x_train if split == "train" else self.x_test)[indices]

    def labels(self, split: Split, indices: np.ndarray | slice) -> np.ndarray:
        """(N,) int64."""
        return (self.y_train if split == "train" else self.y_test)[indices]

    def record(self) -> dict[str, Any]:
        """What a victim's manifest says of the data that it was trained on, and is attacked on."""
        return {
            "fingerprint": self.fingerprint,
            "train_size": len(self.y_train),
            "test_size": len(self.y_test),
            "shape": list(self.shape),
            "classes": self.classes,
            **({"class_names": list(self.class_names)} if self.class_names else {}),
        }


def scaled(images: np.ndarray) -> np.ndarray:
    """Images as stored, as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images


class Reader(Protocol):
    """One way to read a dataset."""

    def key(self) -> str:
        """What tells these data from all others, fit for a file name."""

    def info(self) -> DatasetInfo:
        """Everything that can be known and checked cheaply. DatasetError with every problem."""

    def class_names(self) -> tuple[str, ...]:
        """In the order of labels; empty where the data do not say."""

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        """Fill the four arrays, checked: images as `info` says, labels (N,) int64. DatasetError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Another library's datasets, named `<prefix>…`; `version` is that of what is made of them."""

    prefix: str  # "tfds:"
    library: str  # for people
    example: str  # "tfds:svhn_cropped"
    names: re.Pattern[str]
    version: int
    reader: Callable[[DatasetSpec, str | None], Reader]  # of a dataset, given the data folder
    missing: Callable[[], str | None]  # what to do where the library is not installed; None where it is


def in_memory(arrays: dict[str, np.ndarray]) -> Allocate:
    """Makes room in memory, and leaves what it made in `arrays`."""

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        arrays[name] = np.empty(shape, dtype)
        return arrays[name]

    return allocate


def size_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def some(items: list[str], most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    text = ", ".join(items[:most])
    return f"{text} and {len(items) - most:,} more" if len(items) > most else text
