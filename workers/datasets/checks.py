"""What images and labels must be like, whoever brings them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workers.datasets.base import ARRAYS, Allocate, DatasetError, DatasetInfo, Shape, some

_CHANNELS = (1, 3, 4)


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array of images with its channels: (N, H, W) holds grey ones."""
    return (*shape, 1) if len(shape) == 3 else shape


def images_problems(
    what: str, shape: tuple[int, ...], dtype: np.dtype, expected: Shape | None = None
) -> list[str]:
    """What is wrong with an array of images, from its shape and dtype alone.

    `expected` is the shape that each image must have; without one any height and width will do.
    """
    problems = []
    images = image_shape(shape)
    if expected is None and (len(images) != 4 or images[3] not in _CHANNELS or 0 in images[1:]):
        hint = "; channels come last" if len(images) == 4 and images[1] in _CHANNELS else ""
        problems.append(
            f"{what} is of shape {shape}; (N, H, W) or (N, H, W, C) with 1, 3 or 4 channels is allowed{hint}"
        )
    if expected is not None and images[1:] != expected:
        problems.append(f"{what} has images of shape {images[1:]}; {expected} is allowed")
    if shape and shape[0] == 0:
        problems.append(f"{what} is empty; at least one image is needed")
    if stored_dtype(dtype) is None:
        problems.append(f"{what} is of type {dtype}; uint8, or float32 in [0, 1], is allowed")
    return problems


def stored_dtype(dtype: np.dtype) -> str | None:
    """The dtype in which images of a dtype are kept; None when they are not allowed."""
    kinds = {"u1": "uint8", "f4": "float32", "f8": "float32"}
    return None if dtype.hasobject else kinds.get(f"{dtype.kind}{dtype.itemsize}")


def values_problem(what: str, images: np.ndarray) -> str | None:
    """What is wrong with the pixels of images whose dtype is allowed."""
    if images.dtype == np.uint8 or not images.size:
        return None
    if not np.isfinite(images).all():
        return f"{what} holds NaN or infinite values"
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        return f"{what} has values in [{low:g}, {high:g}]; floats in [0, 1], or uint8, are allowed"
    return None


def flat_labels(labels: np.ndarray) -> np.ndarray:
    """(N, 1) labels as (N,)."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def labels_problem(what: str, labels: np.ndarray, classes: int | None = None) -> str | None:
    """What is wrong with an array of labels, by itself: integers of shape (N,) in [0, classes) are right."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return f"{what} is {labels.dtype} of shape {labels.shape}; integers of shape (N,) are allowed"
    if len(labels) and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
        allowed = f"0 to {classes - 1} are allowed" if classes is not None else "0 and above are allowed"
        return f"{what} has labels from {labels.min()} to {labels.max()}; {allowed}"
    return None


def classes_problem(name: str, y_train: np.ndarray, y_test: np.ndarray) -> str | None:
    """What is wrong with labels that are to tell the number of classes: each needs a training image."""
    trained = {int(label) for label in np.unique(y_train)}
    known = trained | {int(label) for label in np.unique(y_test)}
    largest = max(known)
    if len(known) < 2:
        return f"{name} has one class only; at least two are needed"
    if largest >= len(y_train):
        return (
            f"{name} has labels up to {largest} and {len(y_train)} training images; 0, 1, 2, … are allowed, "
            "each with a training image"
        )
    missing = [str(label) for label in range(largest + 1) if label not in trained]
    if missing:
        hint = "; labels count from 0" if 0 not in known else ""
        return f"{name} has labels up to {largest}, but no training image with label {some(missing)}{hint}"
    return None


def fill(
    name: str,
    arrays: Mapping[str, np.ndarray],
    info: DatasetInfo,
    allocate: Allocate,
) -> None:
    """Check arrays that are in memory already against `info`, and put them where they belong."""
    problems: list[str | None] = []
    labels = {y: flat_labels(np.asarray(arrays[y])) for y in ("y_train", "y_test")}
    for x, y in (ARRAYS[:2], ARRAYS[2:]):
        images, what = arrays[x], f"{name}: {x}"
        if wrong := images_problems(what, images.shape, images.dtype, info.shape):
            problems += wrong
            continue
        problems.append(values_problem(what, images))
        problems.append(labels_problem(f"{name}: {y}", labels[y], info.classes))
        problems.append(count_problem(name, x, len(images), y, len(labels[y])))
    if found := [problem for problem in problems if problem]:
        raise DatasetError(*found)
    for x, y in (ARRAYS[:2], ARRAYS[2:]):
        allocate(x, (len(arrays[x]), *info.shape), info.dtype)[:] = arrays[x].reshape(-1, *info.shape)
        allocate(y, labels[y].shape, np.int64)[:] = labels[y]


def count_problem(name: str, x: str, images: int, y: str, labels: int) -> str | None:
    return None if images == labels else f"{name}: {images} images in {x}, {labels} labels in {y}"
