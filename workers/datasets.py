"""The image datasets that victims are trained and attacked on, and the order in which they are evaluated.

Light to import: scikit-learn and Keras are loaded with the data that they bring.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workers.storage import Folder

ORDER_VERSION = 1
"""Version of `evaluation_order` and `stratified_order`; part of every victim's identity."""

DATA_VARIABLE = "ROBUSTSWEEP_DATA"
"""Environment variable that names the data folder when no `data_dir` is given."""

Split = Literal["train", "test"]
ARRAYS = ("x_train", "y_train", "x_test", "y_test")

_EVALUATION_SEED = 0
_DIGITS_SPLIT_SEED = 1


class DatasetError(Exception):
    """A dataset that cannot be had or is not what it should be; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """A dataset that robustsweep knows. `train_size` and `test_size` are those of the original."""

    name: str
    version: int
    shape: tuple[int, int, int]  # (H, W, C)
    classes: int
    train_size: int
    test_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Images NHWC, uint8 in [0, 255] or float32 in [0, 1] as stored; labels int64 in [0, classes)."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    shape: tuple[int, int, int]
    classes: int

    def images(self, split: Split, indices: np.ndarray | slice) -> np.ndarray:
        """(N, H, W, C) float32 in [0, 1]."""
        images = (self.x_train if split == "train" else self.x_test)[indices]
        return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images

    def labels(self, split: Split, indices: np.ndarray | slice) -> np.ndarray:
        """(N,) int64."""
        return (self.y_train if split == "train" else self.y_test)[indices]


def _source(name: str, shape: tuple[int, int, int], classes: int, sizes: tuple[int, int]) -> DatasetSource:
    train_size, test_size = sizes
    return DatasetSource(
        name=name, version=1, shape=shape, classes=classes, train_size=train_size, test_size=test_size
    )


DATASETS: dict[str, DatasetSource] = {
    source.name: source
    for source in (
        _source("digits", (8, 8, 1), 10, (1297, 500)),
        _source("mnist", (28, 28, 1), 10, (60_000, 10_000)),
        _source("fashion_mnist", (28, 28, 1), 10, (60_000, 10_000)),
        _source("cifar10", (32, 32, 3), 10, (50_000, 10_000)),
        _source("cifar100", (32, 32, 3), 100, (50_000, 10_000)),
    )
}


def load(spec: Mapping[str, Any], data_dir: str | None = None) -> Dataset:
    """The dataset that `spec["name"]` names, checked.

    `digits` comes with scikit-learn: 1,797 images, values 0..16 scaled to [0, 1], in a fixed stratified
    split with 500 for testing. The others are read from `<data_dir>/<name>.npz` (arrays x_train, y_train,
    x_test, y_test as in Keras' mnist.npz) when it is there, else downloaded by Keras. `data_dir` is a
    folder or a URI; without one the environment's ROBUSTSWEEP_DATA counts.

    Raises DatasetError when the data cannot be had or is malformed.
    """
    source = _known(spec)
    if source.name == "digits":
        arrays = _load_digits(source)
    elif (folder := _data_folder(data_dir)) and folder.exists(_file(source)):
        arrays = _load_npz(folder, _file(source))
    else:
        arrays = _load_keras(source, folder)
    return _checked(source, arrays)


def test_size(spec: Mapping[str, Any], data_dir: str | None = None) -> int:
    """How many test images there are, without reading them: the header of y_test, or the table's number."""
    source = _known(spec)
    folder = _data_folder(data_dir)
    if source.name == "digits" or not folder or not folder.exists(_file(source)):
        return source.test_size
    try:
        with (
            folder.filesystem.open_input_file(folder.join(_file(source))) as stream,
            zipfile.ZipFile(stream) as archive,
            archive.open("y_test.npy") as member,
        ):
            version = np.lib.format.read_magic(member)
            if version == (1, 0):
                shape, _, _ = np.lib.format.read_array_header_1_0(member)
            else:
                shape, _, _ = np.lib.format.read_array_header_2_0(member)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{folder.join(_file(source))} is not a readable .npz with y_test: {error}"
        ) from error
    return int(shape[0]) if shape else 0


def splitmix64(seed: int, count: int) -> np.ndarray:
    """The first `count` outputs of SplitMix64 for a seed, (count,) uint64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Written out here
    because NumPy does not promise that its own streams stay the same from one version to the next.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A permutation (N,) int64 of examples whose every prefix has the classes in near-proportion.

    Each class is shuffled, then spread evenly over (0, 1); the classes are merged by place. In a prefix of
    n, a class with share p of the K classes' examples has within 1/2 + p (K - 2) / 2 of n p examples: less
    than one where the classes are of equal size.
    """
    noise = splitmix64(seed, len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(noise[members], kind="stable")]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((noise, place)).astype(np.int64)


def evaluation_order(labels_test: np.ndarray) -> np.ndarray:
    """The order (N,) int64 in which a test split is evaluated; it never changes within `ORDER_VERSION`."""
    return stratified_order(labels_test, _EVALUATION_SEED)


def _known(spec: Mapping[str, Any]) -> DatasetSource:
    try:
        return DATASETS[spec["name"]]
    except KeyError:
        raise DatasetError(
            f'unknown dataset "{spec.get("name")}"; allowed: {", ".join(sorted(DATASETS))}'
        ) from None


def _file(source: DatasetSource) -> str:
    return f"{source.name}.npz"


def _data_folder(data_dir: str | None) -> Folder | None:
    location = data_dir or os.environ.get(DATA_VARIABLE)
    try:
        return Folder.at(location) if location else None
    except ValueError as error:
        raise DatasetError(f"the data folder: {error}") from None


def _load_digits(source: DatasetSource) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    order = stratified_order(digits.target, _DIGITS_SPLIT_SEED)
    # Sorted, so that a row of the split keeps its place among scikit-learn's images.
    test, train = np.sort(order[: source.test_size]), np.sort(order[source.test_size :])
    arrays = (images[train], digits.target[train], images[test], digits.target[test])
    return dict(zip(ARRAYS, arrays, strict=True))


def _load_npz(folder: Folder, name: str) -> dict[str, np.ndarray]:
    path = folder.join(name)
    try:
        with (
            folder.filesystem.open_input_file(path) as stream,
            np.load(stream, allow_pickle=False) as archive,
        ):
            if missing := [array for array in ARRAYS if array not in archive.files]:
                raise DatasetError(f"{path} lacks {', '.join(missing)}; it has {', '.join(archive.files)}")
            return {array: archive[array] for array in ARRAYS}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a readable .npz: {error}") from error


def _load_keras(source: DatasetSource, folder: Folder | None) -> dict[str, np.ndarray]:
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, source.name).load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        where = (
            f"as {folder.join(_file(source))}"
            if folder
            else f"in a folder that --data-dir or {DATA_VARIABLE} names"
        )
        raise DatasetError(
            f"cannot download {source.name} ({error}); "
            f"put {_file(source)}, with the arrays {', '.join(ARRAYS)}, {where}"
        ) from error
    return dict(zip(ARRAYS, (x_train, y_train, x_test, y_test), strict=True))


def _checked(source: DatasetSource, arrays: Mapping[str, np.ndarray]) -> Dataset:
    good: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        images = _checked_images(source, f"x_{split}", arrays[f"x_{split}"])
        labels = _checked_labels(source, f"y_{split}", arrays[f"y_{split}"])
        if len(images) != len(labels):
            raise DatasetError(
                f"{source.name}: {len(images)} images in x_{split}, {len(labels)} labels in y_{split}"
            )
        good |= {f"x_{split}": images, f"y_{split}": labels}
    return Dataset(name=source.name, shape=source.shape, classes=source.classes, **good)


def _checked_images(source: DatasetSource, name: str, images: np.ndarray) -> np.ndarray:
    what = f"{source.name}: {name}"
    if images.ndim == 3 and source.shape[2] == 1:
        images = images[..., np.newaxis]
    if images.shape[1:] != source.shape:
        raise DatasetError(f"{what} has images of shape {images.shape[1:]}; {source.shape} is allowed")
    if not len(images):
        raise DatasetError(f"{what} is empty")
    if images.dtype == np.uint8:
        return images
    if images.dtype not in (np.float32, np.float64):
        raise DatasetError(f"{what} is of type {images.dtype}; uint8, or float32 in [0, 1], is allowed")
    if not np.isfinite(images).all():
        raise DatasetError(f"{what} holds NaN or infinite values")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise DatasetError(
            f"{what} has values in [{low:g}, {high:g}]; floats in [0, 1], or uint8, are allowed"
        )
    return images.astype(np.float32, copy=False)


def _checked_labels(source: DatasetSource, name: str, labels: np.ndarray) -> np.ndarray:
    what = f"{source.name}: {name}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(
            f"{what} is {labels.dtype} of shape {labels.shape}; integers of shape (N,) are allowed"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= source.classes):
        raise DatasetError(
            f"{what} has labels from {labels.min()} to {labels.max()}; 0 to {source.classes - 1} are allowed"
        )
    return labels.astype(np.int64)
