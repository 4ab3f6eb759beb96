"""Datasets of tensorflow-datasets: one that is made here, and read back as any other would be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.datasets import DatasetError, inspect, load, mapped
from workers.unit import DatasetSpec

tfds: Any = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is an optional extra")
pytestmark = pytest.mark.tf

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 9, 7, 3), np.uint8)
LABELS = np.arange(50) % 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three datasets in the format of tensorflow-datasets, without the code that made them."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    for name, shape, splits in (
        ("tiny_birds", (9, 7, 3), {"train": (0, 30), "test": (30, 50)}),
        ("tiny_signs", (None, None, 3), {"train": (0, 30), "validation": (30, 50)}),
        ("tiny_heap", (9, 7, 3), {"train": (0, 50)}),
    ):
        _builder(name, shape, splits)(data_dir=folder).download_and_prepare()
    return folder


def _builder(name: str, shape: tuple[int | None, ...], splits: dict[str, tuple[int, int]]) -> Any:
    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            image, label = tfds.features.Image(shape=shape), tfds.features.ClassLabel(num_classes=5)
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict({"image": image, "label": label}),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, manager: Any) -> Any:
            return {split: self._generate_examples(*rows) for split, rows in splits.items()}

        def _generate_examples(self, start: int, stop: int) -> Any:
            for row in range(start, stop):
                yield row, {"image": IMAGES[row], "label": int(LABELS[row])}

    Builder.name = name
    return Builder


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("small", [0, 2**30])
def test_a_prepared_dataset_is_read(data_dir: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "SMALL", small)
    info = inspect(DatasetSpec(name="tfds:tiny_birds"), data_dir)
    assert (info.shape, info.classes, info.train_size, info.test_size) == ((9, 7, 3), 5, 30, 20)
    for name in ("tfds:tiny_birds", "tfds:tiny_birds:1.0.0"):
        data = load(DatasetSpec(name=name), data_dir)
        np.testing.assert_array_equal(np.concatenate([data.x_train, data.x_test]), IMAGES)
        assert np.concatenate([data.y_train, data.y_test]).tolist() == LABELS.tolist()


def test_images_of_different_sizes_are_resized_where_the_entry_says_so(data_dir: str) -> None:
    with pytest.raises(DatasetError, match="different sizes; say size"):
        inspect(DatasetSpec(name="tfds:tiny_signs"), data_dir)
    data = load(DatasetSpec(name="tfds:tiny_signs", size=8), data_dir)
    assert data.x_test.shape == (20, 8, 8, 3)  # the validation split


def test_what_cannot_be_used_is_said(data_dir: str) -> None:
    with pytest.raises(DatasetError, match="has the splits train; train and test are needed"):
        inspect(DatasetSpec(name="tfds:tiny_heap"), data_dir)
    with pytest.raises(DatasetError, match="has no tfds:nothing_such: Dataset nothing_such not found"):
        inspect(DatasetSpec(name="tfds:nothing_such"), data_dir)
    with pytest.raises(DatasetError, match="tfds:glue/cola has no pairs"):
        inspect(DatasetSpec(name="tfds:glue/cola"), data_dir)
