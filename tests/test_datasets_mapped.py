"""Large data lie on a machine once, however many workers use them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.data import own_arrays, write_images, write_npz
from workers.datasets import Dataset, DatasetError, load, mapped
from workers.datasets.npz import NpzReader
from workers.machine import resident_bytes
from workers.unit import DatasetSpec


@pytest.fixture(autouse=True)
def all_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mapped, "SMALL", 0)


@pytest.fixture
def birds(tmp_path: Path) -> DatasetSpec:
    return DatasetSpec(name="birds", path=str(write_npz(tmp_path / "birds.npz")))


def maps(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in tmp_path.rglob("meta.json"))


def test_mapped_data_are_the_same_data(
    tmp_path: Path, birds: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = load(birds), load(birds)
    (folder,) = maps(tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "meta.json", "x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy",
    }  # fmt: skip
    monkeypatch.setattr(mapped, "SMALL", 2**30)
    shutil.rmtree(folder)
    plain = load(birds)
    assert maps(tmp_path) == []
    for data in (first, again):
        assert (data.shape, data.classes, data.fingerprint) == (plain.shape, plain.classes, plain.fingerprint)
        for name, array in own_arrays().items():
            np.testing.assert_array_equal(getattr(data, name), array)
        assert data.x_train.flags.writeable is False and type(data.x_train) is np.ndarray
        np.testing.assert_array_equal(data.images("test", [3, 5]), plain.images("test", [3, 5]))


def test_folders_of_images_and_known_datasets_are_mapped_too(tmp_path: Path) -> None:
    signs = DatasetSpec(name="signs", path=str(write_images(tmp_path / "signs")))
    sizes = [load(replace(signs, size=size)).shape[0] for size in (None, 10, None, 10)]
    assert sizes == [24, 10, 24, 10]
    np.savez(
        tmp_path / "mnist.npz",
        **{
            name: array[:, ..., 0] if array.ndim == 4 else array
            for name, array in own_arrays(size=28).items()
        },
    )
    as_mnist = load(DatasetSpec(name="mnist"), str(tmp_path))
    as_own = load(DatasetSpec(name="mine", path=str(tmp_path / "mnist.npz")))
    assert (as_mnist.classes, as_own.classes) == (10, 5)  # one file, two datasets
    assert (
        as_mnist.fingerprint
        == load(DatasetSpec(name="mnist"), str(tmp_path)).fingerprint
        == mapped.fingerprint(
            {name: getattr(as_mnist, name) for name in ("x_train", "y_train", "x_test", "y_test")}
        )
    )
    assert len(maps(tmp_path)) == 4


def _load_elsewhere(folder: Path, birds: DatasetSpec) -> tuple[str, int]:
    tempfile.tempdir = str(folder)
    mapped.SMALL = 0
    read = NpzReader.read

    def logged(self: NpzReader, *args: Any) -> None:
        with (folder / "reads.log").open("a") as log:
            log.write("read\n")
        read(self, *args)

    NpzReader.read = logged  # type: ignore[method-assign]
    data = load(birds)
    return data.fingerprint, int(data.x_train.sum(dtype=np.int64))


def test_of_many_workers_at_once_one_converts(tmp_path: Path, birds: DatasetSpec) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        answers = [pool.submit(_load_elsewhere, tmp_path, birds) for _ in range(6)]
        found = {answer.result() for answer in answers}
    assert len(found) == 1
    assert (tmp_path / "reads.log").read_text() == "read\n"
    assert found == {(load(birds).fingerprint, int(own_arrays()["x_train"].sum(dtype=np.int64)))}


def test_a_mapped_dataset_costs_a_process_nothing_of_its_own(tmp_path: Path) -> None:
    arrays = own_arrays(train=60)
    large = np.tile(arrays["x_train"], (400, 1, 1, 1))  # 41 MB
    path = write_npz(tmp_path / "large.npz", x_train=large, y_train=np.tile(arrays["y_train"], 400))
    load(DatasetSpec(name="large", path=str(path)))
    before = resident_bytes()
    data: Dataset = load(DatasetSpec(name="large", path=str(path)))
    assert data.x_train.sum(dtype=np.int64) == large.sum(dtype=np.int64)  # every page has been touched
    assert resident_bytes() - before < large.nbytes / 4
    text = Path("/proc/self/smaps").read_text()
    (block,) = re.findall(r"\S+x_train\.npy\n((?:\w+: +\d+ kB\n)+)", text)
    sizes = {key: int(value) * 1024 for key, value in re.findall(r"(\w+): +(\d+)", block)}
    assert sizes["Rss"] >= large.nbytes and sizes["Private_Dirty"] == 0


@pytest.mark.parametrize("lost", ["x_train.npy", "y_test.npy", "meta.json"])
def test_what_a_cleaner_or_a_crash_left_behind_is_replaced(
    tmp_path: Path, birds: DatasetSpec, lost: str
) -> None:
    expected = load(birds).fingerprint
    (folder,) = maps(tmp_path)
    (folder / lost).unlink()
    half = folder.with_name(f"{folder.name}.tmp")
    half.mkdir()
    (half / "x_train.npy").write_bytes(b"half")
    data = load(birds)
    assert data.fingerprint == expected
    np.testing.assert_array_equal(data.x_train, own_arrays()["x_train"])
    assert not half.exists() and (folder / lost).exists()
    (folder / "x_test.npy").write_bytes((folder / "x_test.npy").read_bytes()[:500])
    np.testing.assert_array_equal(load(birds).x_test, own_arrays()["x_test"])


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, birds: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DatasetError, match="No space left on device; point TMPDIR"):
            load(birds)
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.tmp"))
    assert load(birds).classes == 5


def test_malformed_data_leave_nothing(tmp_path: Path) -> None:
    images = np.zeros((100, 4, 4), np.float32)
    images[-1] = np.nan  # beyond what planning looks at
    path = tmp_path / "bad.npz"
    np.savez(path, x_train=images, y_train=np.arange(100) % 2, x_test=images[:9], y_test=np.arange(9) % 2)
    with pytest.raises(DatasetError, match="NaN"):
        load(DatasetSpec(name="bad", path=str(path)))
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.tmp"))


def test_somebody_elses_folder_is_not_used(tmp_path: Path, birds: DatasetSpec) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"robustsweep-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(DatasetError, match="belongs to somebody else; point TMPDIR"):
        load(birds)
