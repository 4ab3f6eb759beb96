"""The image datasets that victims are trained and attacked on, and the order in which they are evaluated.

Light to import: scikit-learn, Keras and tensorflow-datasets are loaded with the data that they bring.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pyarrow import fs

from workers.datasets import mapped, tfds
from workers.datasets.base import ARRAYS, Dataset, DatasetError, DatasetInfo, Reader, in_memory
from workers.datasets.images import ImageFolderReader
from workers.datasets.named import (
    DATA_VARIABLE,
    DATASETS,
    DatasetSource,
    DigitsReader,
    KerasReader,
    data_folder,
    file_name,
)
from workers.datasets.npz import NpzReader
from workers.datasets.order import ORDER_VERSION, evaluation_order, splitmix64, stratified_order
from workers.datasets.tfds import TfdsReader
from workers.storage import Folder

__all__ = [
    "ARRAYS",
    "DATASETS",
    "DATA_VARIABLE",
    "ORDER_VERSION",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "DatasetSource",
    "ensure_obtainable",
    "evaluation_order",
    "inspect",
    "load",
    "splitmix64",
    "stratified_order",
]


def load(spec: Mapping[str, Any], data_dir: str | None = None) -> Dataset:
    """The dataset that a mapping describes, checked.

    `spec["name"]` is a registered name, or `tfds:<name>`, or any name beside a `path`: an .npz with x_train,
    y_train, x_test, y_test, or a folder of images by class; `size` has images resized; `content` is the
    SHA-256 that the data at the path must have. A registered dataset other than the digits is read from
    `<data_dir>/<name>.npz` when it is there, else downloaded by Keras. `data_dir` is a folder or a URI;
    without one the environment's ROBUSTSWEEP_DATA counts.

    Large images are mapped from files that every worker on this machine shares. Raises DatasetError when the
    data cannot be had, are malformed, or have changed.
    """
    reader = _reader(spec, data_dir)
    key = reader.key()
    held = mapped.find(key)
    if held is None:
        info = reader.info()
        if spec.get("content") not in (None, info.content):
            raise DatasetError(
                f"{spec['name']}: the data at {spec['path']} have changed since the sweep was planned; "
                "run the command again, for results of their own"
            )
        if info.nbytes >= mapped.SMALL:
            held = mapped.build(key, info, reader)
        else:
            arrays: dict[str, np.ndarray] = {}
            reader.read(info, in_memory(arrays))
            held = mapped.Mapped(
                arrays=arrays,
                classes=info.classes,
                fingerprint=info.content or mapped.fingerprint(arrays),
            )
    height, width, channels = held.arrays["x_test"].shape[1:]
    return Dataset(
        name=spec["name"],
        shape=(height, width, channels),
        classes=held.classes,
        fingerprint=held.fingerprint,
        **held.arrays,
    )


def inspect(spec: Mapping[str, Any], data_dir: str | None = None) -> DatasetInfo:
    """What `load` would give, from headers, labels and listings: images are not decoded.

    Data given by path are read once, for their content hash. Raises DatasetError with every problem that
    can be seen from there.
    """
    return _reader(spec, data_dir).info()


def ensure_obtainable(spec: Mapping[str, Any], data_dir: str | None = None) -> None:
    """Raises DatasetError for a dataset that is not here and, as it seems, cannot be downloaded."""
    reader = _reader(spec, data_dir)
    if isinstance(reader, KerasReader):
        reader.ensure_obtainable()


def _reader(spec: Mapping[str, Any], data_dir: str | None) -> Reader:
    name = str(spec.get("name"))
    if "path" in spec:
        return _path_reader(name, spec)
    if name.startswith(tfds.PREFIX):
        return TfdsReader(name=name, data_dir=data_dir, size=spec.get("size"))
    if name not in DATASETS:
        raise DatasetError(f'unknown dataset "{name}"; allowed: {", ".join(sorted(DATASETS))}')
    source = DATASETS[name]
    if source.origin is None:
        return DigitsReader(source)
    folder = data_folder(data_dir)
    if folder and _kind(folder.folder(file_name(source))) == fs.FileType.File:
        return NpzReader(name=name, file=folder.folder(file_name(source)), expected=source.info)
    return KerasReader(source, folder)


def _path_reader(name: str, spec: Mapping[str, Any]) -> Reader:
    try:
        folder = Folder.at(spec["path"])
    except ValueError as error:
        raise DatasetError(str(error)) from None
    folder = Folder(folder.filesystem, folder.path.rstrip("/"))
    kind = _kind(folder)
    if kind == fs.FileType.NotFound:
        raise DatasetError(f"there is nothing at {spec['path']}; an .npz or a folder of images is needed")
    if kind == fs.FileType.Directory:
        return ImageFolderReader(name=name, folder=folder, size=spec.get("size"), content=spec.get("content"))
    if "size" in spec:
        raise DatasetError(
            f"{name}: size is for folders of images; the images of an .npz are taken as they are"
        )
    return NpzReader(name=name, file=folder, content=spec.get("content"))


def _kind(place: Folder) -> fs.FileType:
    try:
        return place.filesystem.get_file_info(place.path).type
    except OSError as error:
        raise DatasetError(f"{place.path} cannot be looked at: {error}") from error
