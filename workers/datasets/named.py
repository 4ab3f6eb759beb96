"""The datasets that robustsweep knows: scikit-learn's digits, and four that Keras downloads."""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.datasets import checks
from workers.datasets.base import ARRAYS, Allocate, DatasetError, DatasetInfo, Shape
from workers.datasets.classes import CLASS_NAMES
from workers.datasets.order import stratified_order
from workers.storage import Folder

DATA_VARIABLE = "ROBUSTSWEEP_DATA"
"""Environment variable that names the data folder when no `data_dir` is given."""

_DIGITS_SPLIT_SEED = 1
_PATIENCE = 10  # seconds for a server to answer


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """A dataset that robustsweep knows; `info` is the original's."""

    name: str
    info: DatasetInfo
    origin: str | None = None  # what Keras downloads first
    cached: str | None = None  # and where it keeps that, below its own folder


def _source(
    name: str, shape: Shape, classes: int, sizes: tuple[int, int], origin: str = "", cached: str = ""
) -> DatasetSource:
    info = DatasetInfo(
        shape=shape,
        classes=classes,
        train_size=sizes[0],
        test_size=sizes[1],
        dtype="uint8" if origin else "float32",
    )
    return DatasetSource(name=name, info=info, origin=origin or None, cached=cached or None)


_GOOGLE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
_TORONTO = "https://www.cs.toronto.edu/~kriz"

DATASETS: dict[str, DatasetSource] = {
    source.name: source
    for source in (
        _source("digits", (8, 8, 1), 10, (1297, 500)),
        _source("mnist", (28, 28, 1), 10, (60_000, 10_000), f"{_GOOGLE}/mnist.npz", "datasets/mnist.npz"),
        _source(
            "fashion_mnist",
            (28, 28, 1),
            10,
            (60_000, 10_000),
            f"{_GOOGLE}/train-images-idx3-ubyte.gz",
            "datasets/fashion-mnist/train-images-idx3-ubyte.gz",
        ),
        _source(
            "cifar10",
            (32, 32, 3),
            10,
            (50_000, 10_000),
            f"{_TORONTO}/cifar-10-python.tar.gz",
            "datasets/cifar-10-batches-py-target_archive",
        ),
        _source(
            "cifar100",
            (32, 32, 3),
            100,
            (50_000, 10_000),
            f"{_TORONTO}/cifar-100-python.tar.gz",
            "datasets/cifar-100-python-target_archive",
        ),
    )
}


def data_folder(data_dir: str | None) -> Folder | None:
    """The folder that `data_dir`, else the environment, names."""
    location = data_dir or os.environ.get(DATA_VARIABLE)
    try:
        return Folder.at(location) if location else None
    except ValueError as error:
        raise DatasetError(f"the data folder: {error}") from None


def file_name(source: DatasetSource) -> str:
    return f"{source.name}.npz"


@dataclass(frozen=True, slots=True)
class DigitsReader:
    """scikit-learn's digits: 1,797 images, values 0..16 scaled to [0, 1], 500 of them for testing."""

    source: DatasetSource

    def key(self) -> str:
        return f"digits-{self.source.info.version}"

    def info(self) -> DatasetInfo:
        return self.source.info

    def class_names(self) -> tuple[str, ...]:
        return CLASS_NAMES[self.source.name]

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
        order = stratified_order(digits.target, _DIGITS_SPLIT_SEED)
        # Sorted, so that a row of the split keeps its place among scikit-learn's images.
        test, train = np.sort(order[: info.test_size]), np.sort(order[info.test_size :])
        arrays = (images[train], digits.target[train], images[test], digits.target[test])
        checks.fill("digits", dict(zip(ARRAYS, arrays, strict=True)), info, allocate)


@dataclass(frozen=True, slots=True)
class KerasReader:
    """A dataset that Keras downloads, unless it has it already."""

    source: DatasetSource
    folder: Folder | None  # the data folder, for errors to name

    def key(self) -> str:
        return f"keras-{self.source.name}-{self.source.info.version}"

    def info(self) -> DatasetInfo:
        return self.source.info

    def class_names(self) -> tuple[str, ...]:
        return CLASS_NAMES[self.source.name]

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        import keras

        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, self.source.name).load_data()
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise self._unobtainable(error) from error
        arrays = dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))
        checks.fill(self.source.name, arrays, info, allocate)

    def ensure_obtainable(self) -> None:
        """Raises DatasetError when neither this machine nor, as far as it can see, the internet has it."""
        if self._is_cached():
            return
        request = urllib.request.Request(self.source.origin or "", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PATIENCE).close()
        except OSError as error:  # URLError and TimeoutError are some
            raise self._unobtainable(error) from error

    def _is_cached(self) -> bool:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
        return (home / (self.source.cached or "")).exists()

    def _unobtainable(self, error: Exception) -> DatasetError:
        file = file_name(self.source)
        where = (
            f"as {self.folder.join(file)}"
            if self.folder
            else f"in a folder that --data-dir or {DATA_VARIABLE} names"
        )
        return DatasetError(
            f"cannot download {self.source.name} ({error}); "
            f"put {file}, with the arrays {', '.join(ARRAYS)}, {where}"
        )
