"""Datasets of tensorflow-datasets, an optional extra: `tfds:<name>`.

Paper and catalogue: https://www.tensorflow.org/datasets
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.datasets import mapped
from workers.datasets.base import Allocate, DatasetError, DatasetInfo, Scheme
from workers.datasets.images import resized
from workers.datasets.named import DATA_VARIABLE, data_folder

_VERSION = 1
_PREFIX = "tfds:"
_TEST_SPLITS = ("test", "validation")


def missing_extra() -> str | None:
    """What to do when tensorflow-datasets is not installed; None when it is."""
    if importlib.util.find_spec("tensorflow_datasets"):
        return None
    return "tensorflow-datasets is not installed: pip install 'robustsweep[tfds]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TfdsReader:
    """Reads a dataset through `tfds.load(…, as_supervised=True)`.

    Its test split, or else its validation split, is the test split. It is looked for in the data folder
    when that holds a folder of its name, else where tensorflow-datasets keeps its own.
    """

    name: str  # "tfds:svhn_cropped"
    data_dir: str | None = None
    size: int | None = None

    def key(self) -> str:
        """Downloads and prepares the dataset where that is still to do."""
        builder = self._builder()
        with mapped.locked(f"tfds-{_digest(str(builder.data_dir))}"):
            try:
                builder.download_and_prepare()
            except Exception as error:  # whatever a dataset's own code makes of a failed download
                raise self._unobtainable(error) from error
        files = sorted(
            (file.name, file.stat().length, file.stat().mtime) for file in builder.data_path.iterdir()
        )
        return f"tfds-{_digest(f'{builder.data_dir} {files}')}-{self.size or 'as-is'}"

    def info(self) -> DatasetInfo:
        """From what the dataset's builder says; nothing is downloaded but, at most, that."""
        builder = self._builder()
        info = builder.info
        if not info.supervised_keys or len(info.supervised_keys) != 2:
            raise DatasetError(f"{self.name} has no pairs of image and label")
        image, label = (info.features[key] for key in info.supervised_keys)
        shape, classes = getattr(image, "shape", None), getattr(label, "num_classes", None)
        if not shape or len(shape) != 3 or not classes or shape[2] not in (1, 3, 4):
            raise DatasetError(f"{self.name} is no set of images with class labels: {image}, {label}")
        if np.dtype(image.np_dtype) != np.uint8:
            raise DatasetError(f"{self.name} has images of type {image.np_dtype}; uint8 is allowed")
        if self.size is not None:
            shape = (self.size, self.size, shape[2])
        if None in shape:
            raise DatasetError(
                f"{self.name} has images of different sizes; say size: 64 to have them resized"
            )
        sizes = {name: split.num_examples for name, split in info.splits.items()}
        if not sizes:
            raise self._unobtainable("it is not prepared here, and its sizes are not known")
        if "train" not in sizes or not _test_split(sizes):
            raise DatasetError(f"{self.name} has the splits {', '.join(sizes)}; train and test are needed")
        return DatasetInfo(
            shape=shape,
            classes=classes,
            train_size=sizes["train"],
            test_size=sizes[_test_split(sizes)],
            version=_VERSION,
        )

    def class_names(self) -> tuple[str, ...]:
        info = self._builder().info
        return tuple(getattr(info.features[info.supervised_keys[1]], "names", None) or ())

    def read(self, info: DatasetInfo, allocate: Allocate) -> None:
        import tensorflow_datasets as tfds

        builder = self._builder()
        sizes = {"train": info.train_size, "test": info.test_size}
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # as stored, and not kept
        for split, count in sizes.items():
            images = allocate(f"x_{split}", (count, *info.shape), np.uint8)
            labels = allocate(f"y_{split}", (count,), np.int64)
            chosen = split if split == "train" else _test_split(builder.info.splits)
            try:
                stored = tfds.load(
                    self.name.removeprefix(_PREFIX),
                    split=chosen,
                    as_supervised=True,
                    data_dir=self._data_dir(),
                    read_config=config,
                )
                row = -1
                for row, (image, label) in enumerate(tfds.as_numpy(stored)):
                    grey = image[..., 0] if info.shape[2] == 1 else image
                    images[row] = resized(grey, self.size).reshape(info.shape)
                    labels[row] = label
            except Exception as error:  # whatever TensorFlow and a dataset's own code raise
                raise DatasetError(f"{self.name} cannot be read: {error}") from error
            if row + 1 != count or labels.min() < 0 or labels.max() >= info.classes:
                raise DatasetError(
                    f"{self.name}: split {chosen} has {row + 1} of {count} examples, with labels from "
                    f"{labels.min()} to {labels.max()}; 0 to {info.classes - 1} are allowed"
                )

    def _data_dir(self) -> str | None:
        location = self.data_dir or os.environ.get(DATA_VARIABLE)
        folder = data_folder(location)
        base = re.split("[:/]", self.name.removeprefix(_PREFIX))[0]
        if folder is None or not folder.exists(base):
            return None
        return folder.path if folder.is_local else location

    def _builder(self) -> Any:
        if problem := missing_extra():
            raise DatasetError(f"{self.name}: {problem}")
        import tensorflow_datasets as tfds

        try:
            return tfds.builder(self.name.removeprefix(_PREFIX), data_dir=self._data_dir())
        except Exception as error:  # its errors for an unknown name run over many lines
            raise DatasetError(
                f"tensorflow-datasets has no {self.name}: {str(error).splitlines()[0]}"
            ) from error

    def _unobtainable(self, reason: object) -> DatasetError:
        name = self.name.removeprefix(_PREFIX)
        return DatasetError(
            f"cannot get {self.name} ({reason}); where there is internet, run python -c "
            f"\"import tensorflow_datasets as tfds; tfds.load('{name}', data_dir='DATA')\", "
            "and name the folder DATA with --data-dir"
        )


SCHEME = Scheme(
    prefix=_PREFIX,
    library="tensorflow-datasets",
    example="tfds:svhn_cropped",
    names=re.compile(r"tfds:[a-z][a-z0-9_]*(/[A-Za-z0-9_.+-]+)?(:\d+\.\d+\.\d+)?"),
    version=_VERSION,
    reader=lambda spec, data_dir: TfdsReader(name=spec.name, data_dir=data_dir, size=spec.size),
    missing=missing_extra,
)


def _test_split(sizes: Any) -> str:
    return next((name for name in _TEST_SPLITS if name in sizes), "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
