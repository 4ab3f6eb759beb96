"""A user's own data, made from scikit-learn's digits: an .npz and folders of images."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@cache
def _digits(size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The digits below `classes`, (N, size, size) uint8 and (N,) int64."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = digits.target < classes
    images = (digits.images[chosen] / 16 * 255).astype(np.uint8)
    resized = [np.asarray(Image.fromarray(image).resize((size, size))) for image in images]
    return np.stack(resized), digits.target[chosen].astype(np.int64)


def own_arrays(*, size: int = 24, classes: int = 5, train: int = 60, test: int = 25) -> dict[str, Any]:
    """The four arrays of an .npz: RGB images, five classes at 24 pixels."""
    images, labels = _digits(size, classes)
    colours = np.stack([images] * 3, axis=-1)
    return {
        "x_train": colours[:train],
        "y_train": labels[:train],
        "x_test": colours[train : train + test],
        "y_test": labels[train : train + test],
    }


def write_npz(path: Path, **changes: Any) -> Path:
    np.savez(path, **{**own_arrays(), **changes})
    return path


def write_images(
    folder: Path,
    *,
    size: int = 24,
    classes: tuple[str, ...] = ("give_way", "no_entry", "stop"),
    train: int = 30,
    test: int = 12,
) -> Path:
    """Folders of grey images, PNG but for a few JPEG, by class."""
    images, labels = _digits(size, len(classes))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        if i >= train + test:
            break
        target = folder / ("train" if i < train else "test") / classes[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f"{i:04}{'.jpg' if i % 10 == 0 else '.png'}")
    return folder
