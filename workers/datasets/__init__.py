"""The image datasets that victims are trained and attacked on, and the order in which they are evaluated.

Light to import: scikit-learn, Keras and tensorflow-datasets are loaded with the data that they bring.
"""

from __future__ import annotations

import numpy as np
from pyarrow import fs

from workers.datasets import mapped, tfds
from workers.datasets.base import ARRAYS, Dataset, DatasetError, DatasetInfo, Reader, Scheme, in_memory
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
from workers.storage import Folder
from workers.unit import DatasetSpec

__all__ = [
    "ARRAYS",
    "DATASETS",
    "DATA_VARIABLE",
    "ORDER_VERSION",
    "SCHEMES",
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "DatasetSource",
    "Scheme",
    "ensure_obtainable",
    "evaluation_order",
    "inspect",
    "is_here",
    "load",
    "scheme_of",
    "splitmix64",
    "stratified_order",
]

SCHEMES: dict[str, Scheme] = {scheme.prefix: scheme for scheme in (tfds.SCHEME,)}
"""Other libraries whose datasets a grid may name, by the prefix of these names."""


def scheme_of(name: str) -> Scheme | None:
    return next((scheme for prefix, scheme in SCHEMES.items() if name.startswith(prefix)), None)


def load(spec: DatasetSpec, data_dir: str | None = None) -> Dataset:
    """The dataset that a spec describes, checked.

    Data at a `path` are an .npz with x_train, y_train, x_test, y_test, or a folder of images by class. A
    registered dataset other than the digits is read from `<data_dir>/<name>.npz` when it is there, else
    downloaded by Keras. `data_dir` is a folder or a URI; without one the environment's ROBUSTSWEEP_DATA
    counts.

    Large images are mapped from files that every worker on this machine shares. Raises DatasetError when the
    data cannot be had, are malformed, or have changed.
    """
    reader = _reader(spec, data_dir)
    key = reader.key()
    held = mapped.find(key)
    if held is None:
        info = reader.info()
        if spec.content not in (None, info.content):
            raise DatasetError(
                f"{spec.name}: the data at {spec.path} have changed since the sweep was planned; "
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
        name=spec.name,
        shape=(height, width, channels),
        classes=held.classes,
        fingerprint=held.fingerprint,
        class_names=reader.class_names(),
        **held.arrays,
    )


def inspect(spec: DatasetSpec, data_dir: str | None = None) -> DatasetInfo:
    """What `load` would give, from headers, labels and listings: images are not decoded.

    Data given by path are read once, for their content hash. Raises DatasetError with every problem that
    can be seen from there.
    """
    return _reader(spec, data_dir).info()


def is_here(spec: DatasetSpec, data_dir: str | None = None) -> bool:
    """Whether `load` reads it from a place that is named, rather than asking another library for it."""
    return isinstance(_reader(spec, data_dir), DigitsReader | NpzReader | ImageFolderReader)


def ensure_obtainable(spec: DatasetSpec, data_dir: str | None = None) -> None:
    """Raises DatasetError for a dataset that is not here and, as it seems, cannot be downloaded."""
    reader = _reader(spec, data_dir)
    if isinstance(reader, KerasReader):
        reader.ensure_obtainable()


def _reader(spec: DatasetSpec, data_dir: str | None) -> Reader:
    if spec.path is not None:
        return _path_reader(spec, spec.path)
    if scheme := scheme_of(spec.name):
        return scheme.reader(spec, data_dir)
    if spec.name not in DATASETS:
        raise DatasetError(f'unknown dataset "{spec.name}"; allowed: {", ".join(sorted(DATASETS))}')
    source = DATASETS[spec.name]
    if source.origin is None:
        return DigitsReader(source)
    folder = data_folder(data_dir)
    if folder and _kind(folder.folder(file_name(source))) == fs.FileType.File:
        return NpzReader(name=spec.name, file=folder.folder(file_name(source)), expected=source.info)
    return KerasReader(source, folder)


def _path_reader(spec: DatasetSpec, path: str) -> Reader:
    try:
        folder = Folder.at(path)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    folder = Folder(folder.filesystem, folder.path.rstrip("/"))
    kind = _kind(folder)
    if kind == fs.FileType.NotFound:
        raise DatasetError(f"there is nothing at {path}; an .npz or a folder of images is needed")
    if kind == fs.FileType.Directory:
        return ImageFolderReader(name=spec.name, folder=folder, size=spec.size, content=spec.content)
    if spec.size is not None:
        raise DatasetError(
            f"{spec.name}: size is for folders of images; the images of an .npz are taken as they are"
        )
    return NpzReader(name=spec.name, file=folder, content=spec.content)


def _kind(place: Folder) -> fs.FileType:
    try:
        return place.filesystem.get_file_info(place.path).type
    except OSError as error:
        raise DatasetError(f"{place.path} cannot be looked at: {error}") from error
