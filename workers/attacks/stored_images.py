"""Adversarial images in a file: what somebody else's tool found.

An .npz with `images` and `example_index` (N,), the rows of the dataset's test split that they were made from,
no row twice. `images` are (N, H, W, C), one for each; or (E, N, H, W, C) with `epsilon` (E,), the epsilons on
the [0, 1] scale, in any norm, that they were made for. `clean`, which may be left out, are (N, H, W, C), the
images that they were made from. Floats in [0, 1], or uint8.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.archives import BROKEN, array_header, ensure_sound
from workers.datasets import checks
from workers.rounding import moved_by_saving
from workers.storage import Folder

_NEEDED = ("images", "example_index")
_CLOSE = 1e-4  # channels this close are the same, whatever they were scaled by and back
_SAME = 1e-6  # epsilons this close, relatively, are the same: a file may hold them in float32


class StoredImagesError(ValueError):
    """A file of adversarial images that cannot be used; each of `problems` says why."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, eq=False)
class StoredImages:
    """The images of a file, as they are stored, with what they were made from and for."""

    path: str
    content: str  # SHA-256 of the file
    images: NDArray[np.uint8] | NDArray[np.floating]  # (E, N, H, W, C); E is 1 without epsilons
    example_index: NDArray[np.int64]  # (N,)
    epsilons: NDArray[np.float64] | None  # (E,)
    clean: NDArray[np.uint8] | NDArray[np.floating] | None  # (N, H, W, C)
    moved: float  # how far saving may have moved a channel of the images, on the [0, 1] scale

    def check_fits(self, shape: tuple[int, ...], epsilons: Iterable[float]) -> None:
        """Raises StoredImagesError unless the images have that shape (H, W, C), and serve those epsilons."""
        found = self.images.shape[2:]
        problems = [] if found == shape else [f"{self.path} has images of shape {found}; {shape} is needed"]
        missing = [epsilon for epsilon in epsilons if epsilon > 0 and self._level(epsilon) is None]
        if missing and self.epsilons is not None:
            problems.append(
                f"{self.path} has no images for epsilon {_listed(missing)} on the [0, 1] scale; "
                f"it has some for {_listed(self.epsilons)}"
            )
        if problems:
            raise StoredImagesError(*problems)

    def check_clean(
        self, places: NDArray[np.integer], images: NDArray[np.float32], example_indices: NDArray[np.integer]
    ) -> None:
        """Raises StoredImagesError unless `clean` at those places (R,), where there is one, is the dataset's.

        `images` (R, H, W, C) are the dataset's, of those rows of its test split (R,).
        """
        if self.clean is None or not len(places):
            return
        stored = self.clean[places]
        apart = np.abs(_on_unit_scale(stored) - images).max(axis=(1, 2, 3))
        differing = np.flatnonzero(apart > moved_by_saving(stored) + _CLOSE)
        if len(differing):
            worst = differing[apart[differing].argmax()]
            raise StoredImagesError(
                f"{self.path}: clean is not the dataset's image for {len(differing)} of {len(places)} rows "
                f"of the test split: up to {apart[worst]:.3g} apart on the [0, 1] scale, in row "
                f"{example_indices[worst]}; its example_index, split or preprocessing is another"
            )

    def places(self, example_indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Where each of those (R,) examples is in the file, (R,); -1 where it is not."""
        order = np.argsort(self.example_index)
        at = np.minimum(np.searchsorted(self.example_index, example_indices, sorter=order), len(order) - 1)
        found: NDArray[np.int64] = order[at]
        return np.where(self.example_index[found] == example_indices, found, -1)

    def images_at(self, places: NDArray[np.integer], epsilons: NDArray[np.float64]) -> NDArray[np.float32]:
        """The images (R, H, W, C) in [0, 1] at those places (R,), made for those epsilons (R,)."""
        levels = np.array([self._level(epsilon) for epsilon in epsilons], np.int64)
        return _on_unit_scale(self.images[levels, places])

    def _level(self, epsilon: float) -> int | None:
        if self.epsilons is None:
            return 0
        same = np.flatnonzero(np.isclose(self.epsilons, epsilon, rtol=_SAME, atol=0))
        return int(same[0]) if len(same) else None


def read_stored(path: str, content: str | None = None) -> StoredImages:
    """Read and check the file at a local path or a URI; `content` is the SHA-256 that it must have.

    Raises StoredImagesError with every problem that it has.
    """
    try:
        data = Folder.at(path).read("")
    except (OSError, ValueError) as error:
        raise StoredImagesError(f"cannot read {path}: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if content not in (None, found):
        raise StoredImagesError(
            f"{path} has changed since the sweep was planned: its SHA-256 was {str(content)[:12]}…, it is "
            f"{found[:12]}…; run the command again, for results of their own"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = dict(_arrays(archive))
    except BROKEN as error:
        raise StoredImagesError(f"{path} is not a readable .npz: {error}") from error
    if missing := [name for name in _NEEDED if name not in arrays]:
        has = ", ".join(arrays) or "nothing"
        raise StoredImagesError(f"{path} lacks {' and '.join(missing)}; it has {has}")
    images, index, epsilons = arrays["images"], arrays["example_index"], arrays.get("epsilon")
    clean = arrays.get("clean")
    problems = [
        *_images_problems(images, epsilons),
        *_index_problems(index, images.shape[-4] if images.ndim in (4, 5) else None),
        *([] if clean is None else _clean_problems(clean, images.shape[-4:])),
    ]
    if problems:
        raise StoredImagesError(*(f"{path}: {problem}" for problem in problems))
    return StoredImages(
        path,
        found,
        images if images.ndim == 5 else images[None],
        index.astype(np.int64),
        None if epsilons is None else epsilons.astype(np.float64),
        clean,
        moved_by_saving(images),
    )


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, np.ndarray]]:
    ensure_sound(archive)
    for member in archive.infolist():
        with archive.open(member) as stream:
            array_header(stream, member.file_size)
        with archive.open(member) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
        yield member.filename.removesuffix(".npy"), array


def _images_problems(images: np.ndarray, epsilons: np.ndarray | None) -> list[str]:
    if epsilons is None and images.ndim == 5:
        return ["images of five dimensions, (E, N, H, W, C), need an array epsilon (E,), one for each E"]
    if images.ndim != (4 if epsilons is None else 5):
        allowed = "(N, H, W, C)" if epsilons is None else "(E, N, H, W, C), since there is an epsilon,"
        return [f"images is of shape {images.shape}; {allowed} is allowed"]
    problems = []
    if epsilons is not None and (
        epsilons.shape != images.shape[:1]
        or epsilons.dtype.kind not in "fiu"
        or not (np.isfinite(epsilons) & (epsilons >= 0)).all()
        or len(np.unique(epsilons)) < len(epsilons)
    ):
        problems.append(
            f"epsilon is {epsilons.dtype} of shape {epsilons.shape}; {len(images)} different numbers from 0, "
            "on the [0, 1] scale, are allowed: one for each of the images' first dimension"
        )
    if 0 in images.shape:
        problems.append(f"images is of shape {images.shape}; at least one image is needed")
    return problems + _values_problems("images", images)


def _clean_problems(clean: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    if clean.shape != shape:
        return [f"clean is of shape {clean.shape}; {shape}, an image for each of images, is allowed"]
    return _values_problems("clean", clean)


def _values_problems(name: str, images: np.ndarray) -> list[str]:
    if checks.stored_dtype(images.dtype) is None:
        return [f"{name} is of type {images.dtype}; uint8, or floats in [0, 1], are allowed"]
    problem = checks.values_problem(name, images)
    return [problem] if problem else []


def _index_problems(index: np.ndarray, images: int | None) -> list[str]:
    if index.ndim != 1 or index.dtype.kind not in "iu" or (len(index) and index.min() < 0):
        found = f"example_index is {index.dtype} of shape {index.shape}"
        return [f"{found}; integers from 0, of shape (N,), are allowed"]
    if images is not None and len(index) != images:
        return [f"{images} images, but {len(index)} entries in example_index"]
    values, counts = np.unique(index, return_counts=True)
    if len(twice := values[counts > 1]):
        return [f"example_index has row {twice[0]} more than once"]
    return []


def _on_unit_scale(stored: NDArray[np.uint8] | NDArray[np.floating]) -> NDArray[np.float32]:
    images: NDArray[np.float32] = stored.astype(np.float32)
    return images / np.float32(255) if stored.dtype == np.uint8 else images


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.6g}" for number in numbers)
