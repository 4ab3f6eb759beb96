"""A user's own .npz: what is taken from it, what is refused, and what identifies it."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.support.data import own_arrays, write_npz
from workers.datasets import Dataset, DatasetError, evaluation_order, inspect, load
from workers.unit import DatasetSpec


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def spec(path: Path, **options: Any) -> DatasetSpec:
    return DatasetSpec(name="birds", path=str(path), **options)


def test_everything_is_told_from_headers_and_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "birds.npz")
    info = inspect(spec(path))
    assert (info.shape, info.classes, info.train_size, info.test_size) == ((24, 24, 3), 5, 60, 25)
    birds, arrays = load(spec(path)), own_arrays()
    assert (birds.shape, birds.classes, birds.fingerprint) == (info.shape, 5, info.content)
    for name, array in arrays.items():
        np.testing.assert_array_equal(getattr(birds, name), array)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (np.zeros((6, 9, 7), np.uint8), (9, 7, 1)),
        (np.zeros((6, 9, 7, 1), np.float32), (9, 7, 1)),
        (np.full((6, 9, 7, 4), 0.5), (9, 7, 4)),
        (np.full((6, 9, 7, 3), 0.25, ">f4"), (9, 7, 3)),
        (np.asfortranarray(np.arange(6 * 5 * 4 * 3, dtype=np.uint8).reshape(6, 5, 4, 3)), (5, 4, 3)),
    ],
)
def test_any_size_and_number_of_channels(
    tmp_path: Path, images: np.ndarray, shape: tuple[int, int, int], compressed: bool
) -> None:
    path = tmp_path / "any.npz"
    labels = np.array([[0], [1], [2], [0], [1], [2]], np.int16)
    save = np.savez_compressed if compressed else np.savez
    save(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = load(spec(path))
    assert (data.shape, data.classes) == (shape, 3)
    assert data.y_train.tolist() == [0, 1, 2, 0, 1, 2] and data.y_train.dtype == np.int64
    stored = np.uint8 if images.dtype == np.uint8 else np.float32
    assert data.x_test.dtype == stored
    np.testing.assert_array_equal(data.x_test.reshape(images.shape), images)


def test_images_larger_than_a_block_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.datasets.npz._BLOCK", 5000)  # two images and a bit
    birds = load(spec(write_npz(tmp_path / "birds.npz")))
    np.testing.assert_array_equal(birds.x_train, own_arrays()["x_train"])
    images, labels = own_arrays()["x_train"].astype(np.float32) / 255, own_arrays()["y_train"]
    images = np.concatenate([images, images])
    images[-1, 0, 0, 0] = np.nan  # beyond what planning looks at
    path = tmp_path / "bright.npz"
    np.savez(path, x_train=images, y_train=np.tile(labels, 2), x_test=images[:60], y_test=labels)
    assert inspect(spec(path)).train_size == 120
    with pytest.raises(DatasetError, match="x_train holds NaN"):
        load(spec(path))


def test_the_file_may_be_named_by_a_uri(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "birds.npz")
    uri = DatasetSpec(name="birds", path=f"file://{path}")
    assert load(uri).fingerprint == load(spec(path)).fingerprint == inspect(uri).content


Y = np.arange(60) % 5


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"x_test": np.zeros((25, 3, 24, 24), np.uint8)}, ["x_test is of shape", "channels come last"]),
        ({"x_test": np.zeros((25, 24, 24, 2), np.uint8)}, ["with 1, 3 or 4 channels is allowed"]),
        ({"x_test": np.zeros((25, 24), np.uint8)}, ["x_test is of shape (25, 24)"]),
        ({"x_test": np.uint8(3)}, ["x_test is of shape ()"]),
        ({"x_test": np.zeros((25, 0, 24, 3), np.uint8)}, ["x_test is of shape (25, 0, 24, 3)"]),
        ({"x_test": np.zeros((25, 20, 24, 3), np.uint8)}, ["(24, 24, 3) in x_train, (20, 24, 3) in x_test"]),
        ({"x_test": np.zeros((25, 24, 24, 3), np.float32)}, ["x_train is uint8, x_test float32"]),
        ({"x_test": np.zeros((0, 24, 24, 3), np.uint8), "y_test": Y[:0]}, ["x_test is empty"]),
        ({"x_test": np.zeros((25, 24, 24, 3), np.int32)}, ["x_test is of type int32"]),
        ({"x_test": np.full((25, 24, 24, 3), 128.0)}, ["values in [128, 128]; floats in [0, 1], or uint8"]),
        ({"x_test": np.full((25, 24, 24, 3), -1.0)}, ["values in [-1, -1]"]),
        ({"x_test": np.full((25, 24, 24, 3), np.inf)}, ["x_test holds NaN or infinite values"]),
        ({"y_train": Y[:59]}, ["60 images in x_train, 59 labels in y_train"]),
        ({"y_train": Y + 1, "y_test": Y[:25] + 1}, ["no training image with label 0; labels count from 0"]),
        ({"y_train": Y * 2}, ["labels up to 8, but no training image with label 1, 3, 5, 7"]),
        ({"y_train": Y % 4}, ["labels up to 4, but no training image with label 4"]),
        ({"y_train": Y + 10**9}, ["labels up to 1000000004 and 60 training images"]),
        ({"y_train": Y * 0, "y_test": Y[:25] * 0}, ["one class only; at least two"]),
        ({"y_train": Y - 2}, ["labels from -2 to 2; 0 and above are allowed"]),
        ({"y_train": Y.astype(np.float32)}, ["y_train is float32 of shape (60,)"]),
        ({"y_train": np.eye(5)[Y]}, ["y_train is float64 of shape (60, 5); integers of shape (N,)"]),
        (
            {"x_train": np.zeros((60, 9)), "y_train": Y - 1, "y_test": Y[:25] / 2},
            ["x_train is of shape (60, 9)", "y_train has labels from -1", "y_test is float64"],
        ),
    ],
)
def test_what_is_wrong_shows_at_planning_all_at_once(
    tmp_path: Path, changes: dict[str, Any], messages: list[str]
) -> None:
    path = write_npz(tmp_path / "birds.npz", **changes)
    for ask in (inspect, load):
        with pytest.raises(DatasetError) as caught:
            ask(spec(path))
        for message in messages:
            assert message in str(caught.value)
    assert len(caught.value.problems) >= len(messages) - ("channels come last" in str(caught.value))


def npz_bytes(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "birds.npz")
    whole = path.read_bytes()
    wrong = bytearray(whole)
    wrong[len(whole) // 3] ^= 0xFF  # in the pixels: only the archive's checksum tells
    pickled = io.BytesIO()
    np.save(pickled, np.array([object()]), allow_pickle=True)
    good = io.BytesIO()
    np.save(good, Y)
    members = dict.fromkeys(("y_train", "x_test", "y_test"), good.getvalue())
    contents = {
        "not a readable .npz": [b"", b"text", whole[:-100], npz_bytes(x_train=b"text", **members)],
        "lacks x_train": [npz_bytes(**members)],
        "is of type object": [npz_bytes(x_train=pickled.getvalue(), **members)],
    }
    for message, files in contents.items():
        for content in files:
            path.write_bytes(content)
            with pytest.raises(DatasetError, match=message):
                inspect(spec(path))
    path.write_bytes(wrong)
    with pytest.raises(DatasetError, match="not a readable"):
        load(spec(path))
    with pytest.raises(DatasetError, match="there is nothing at"):
        load(spec(tmp_path / "absent.npz"))
    with pytest.raises(DatasetError, match="size is for folders"):
        load(spec(path, size=32))


def test_data_that_have_changed_since_planning_are_refused(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "birds.npz")
    planned = spec(path, content=inspect(spec(path)).content)
    assert load(planned).fingerprint == planned.content
    write_npz(path, y_test=own_arrays()["y_test"][::-1])
    with pytest.raises(DatasetError, match="have changed since the sweep was planned"):
        load(planned)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_fingerprint_changes_exactly_when_the_content_does(data: st.DataObject, tmp_path: Path) -> None:
    """Of the file by its bytes, wherever it lies; of the arrays by their pixels and labels."""
    images = st.builds(
        lambda x: (x, np.arange(6) % 2), hnp.arrays(np.uint8, (6, 2, 2, 1), elements=st.integers(0, 2))
    )
    contents, arrays = [], []
    for name in ("one", "other"):
        x, y = data.draw(images)
        file = tmp_path / f"{name}.npz"
        write_npz(file, x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
        contents.append((load(spec(file)).fingerprint, inspect(spec(file)).content, file.read_bytes()))
        arrays.append((x.tobytes(), contents[-1][0]))
    for first, second in ((contents[0][0], contents[1][0]), (contents[0][1], contents[1][1])):
        assert (first == second) == (contents[0][2] == contents[1][2])
    assert (arrays[0][0] == arrays[1][0]) == (arrays[0][1] == arrays[1][1])


def test_the_evaluation_order_of_own_data_never_changes(tmp_path: Path) -> None:
    order = evaluation_order(load(spec(write_npz(tmp_path / "birds.npz"))).y_test)
    # fmt: off
    assert order.tolist() == [
        2, 4, 1, 6, 18, 5, 14, 12, 8, 23, 10, 19, 17, 15, 22, 16, 13, 7, 21, 9, 11, 24, 0, 20, 3,
    ]
    # fmt: on


def test_a_dataset_is_described_in_its_victims_manifest(tmp_path: Path) -> None:
    birds: Dataset = load(spec(write_npz(tmp_path / "birds.npz")))
    assert birds.record() == {
        "fingerprint": birds.fingerprint,
        "train_size": 60,
        "test_size": 25,
        "shape": [24, 24, 3],
        "classes": 5,
    }
