"""Folders of images by class: what is taken from them, what is refused, and what identifies them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import fs

from tests.support.data import write_images
from workers.datasets import DatasetError, evaluation_order, inspect, load
from workers.datasets.images import ImageFolderReader
from workers.storage import Folder
from workers.unit import DatasetSpec


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def signs(tmp_path: Path) -> Path:
    return write_images(tmp_path / "signs")


def spec(folder: Path, **options: Any) -> DatasetSpec:
    return DatasetSpec(name="signs", path=f"{folder}/", **options)


def test_classes_are_the_sorted_folders_and_rows_the_sorted_files(signs: Path) -> None:
    info, data = inspect(spec(signs)), load(spec(signs))
    assert (info.shape, info.classes, info.train_size, info.test_size) == ((24, 24, 1), 3, 30, 12)
    assert (data.shape, data.classes, data.fingerprint) == (info.shape, 3, info.content)
    for split, images, labels in (
        ("train", data.x_train, data.y_train),
        ("test", data.x_test, data.y_test),
    ):
        row = 0
        for label, name in enumerate(("give_way", "no_entry", "stop")):
            for file in sorted((signs / split / name).iterdir()):
                assert labels[row] == label
                np.testing.assert_array_equal(images[row, ..., 0], np.asarray(Image.open(file)))
                row += 1
        assert row == len(images)
    assert data.images("test", slice(None)).max() <= 1


def test_one_image_in_colour_makes_all_of_them_rgb(signs: Path) -> None:
    grey = load(spec(signs))
    Image.new("RGB", (24, 24), (255, 0, 7)).save(signs / "train" / "stop" / "zzz.png")
    coloured = load(spec(signs))
    assert coloured.shape == (24, 24, 3)
    assert coloured.x_train[-1, 3, 5].tolist() == [255, 0, 7]
    np.testing.assert_array_equal(coloured.x_test, np.repeat(grey.x_test, 3, axis=-1))


def test_images_are_resized_where_the_entry_says_so(signs: Path) -> None:
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).save(signs / "test" / "stop" / "zzz.png")
    with pytest.raises(
        DatasetError, match=r"1 of 43 images are not 24×24 pixels: test/stop/zzz.png \(30×40\)"
    ):
        inspect(spec(signs))
    data = load(spec(signs, size=16))
    assert data.shape == (16, 16, 1)
    image = Image.open(signs / "test" / "stop" / "zzz.png").resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.x_test[-1, ..., 0], np.asarray(image))


def test_hidden_files_and_litter_are_left_out(signs: Path) -> None:
    before = inspect(spec(signs))
    (signs / ".DS_Store").touch()
    (signs / "README.txt").touch()
    (signs / "train" / "stop" / "Thumbs.db").touch()
    (signs / "train" / ".ipynb_checkpoints").mkdir()
    (signs / "train" / ".ipynb_checkpoints" / "0.png").touch()
    assert inspect(spec(signs)) == before


def test_the_folder_may_be_on_an_object_store(signs: Path) -> None:
    store = fs._MockFileSystem()
    for file in signs.rglob("*.*"):
        target = f"bucket/signs/{file.relative_to(signs)}"
        store.create_dir(target.rpartition("/")[0], recursive=True)
        with store.open_output_stream(target) as stream:
            stream.write(file.read_bytes())
    reader = ImageFolderReader(name="signs", folder=Folder(store, "bucket/signs"))
    assert reader.info() == inspect(spec(signs))


def remove_train(signs: Path) -> None:
    shutil.rmtree(signs / "train")


def remove_test_class(signs: Path) -> None:
    shutil.rmtree(signs / "test" / "stop")


def add_test_class(signs: Path) -> None:
    write_images(signs, classes=("a_new_one", "no_entry", "stop"), train=0)


def leave_one_class(signs: Path) -> None:
    for split in ("train", "test"):
        for name in ("give_way", "stop"):
            shutil.rmtree(signs / split / name)


def empty_a_class(signs: Path) -> None:
    for file in (signs / "train" / "stop").iterdir():
        file.unlink()


def empty_test(signs: Path) -> None:
    for file in (signs / "test").rglob("*.*"):
        file.unlink()


def misplace(signs: Path) -> None:
    (signs / "train" / "0.png").touch()
    (signs / "train" / "stop" / "more").mkdir()
    (signs / "train" / "stop" / "more" / "1.png").touch()
    (signs / "train" / "stop" / "notes.txt").touch()


def break_headers(signs: Path) -> None:
    for file in sorted((signs / "train" / "stop").iterdir()):
        file.write_bytes(b"no image")


def save(name: str, mode: str) -> Callable[[Path], None]:
    return lambda signs: Image.new(mode, (24, 24)).save(signs / "train" / "stop" / name)


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (remove_train, ["train/ is missing or empty; train/<class>/*.png is needed"]),
        (remove_test_class, ["test/ lacks the class folders stop"]),
        (add_test_class, ["test/ has the class folders a_new_one, which train/ lacks"]),
        (leave_one_class, ["train/ has 1 class folders; at least two"]),
        (empty_a_class, ["train/ has no image of class stop"]),
        (empty_test, ["test/ has no image"]),
        (misplace, ["train/0.png", "train/stop/more", "train/stop/notes.txt", "(.png, .jpg, .jpeg)"]),
        (break_headers, ["train/stop/0002.png cannot be decoded: no PNG or JPEG", "and 5 more"]),
        (save("x.png", "RGBA"), ["train/stop/x.png is RGBA; grey or RGB in 8 bits, without transparency"]),
        (save("x.png", "I;16"), ["train/stop/x.png is I;16; grey or RGB in 8 bits"]),
        (save("x.jpg", "CMYK"), ["train/stop/x.jpg is CMYK"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_shows_at_planning(
    signs: Path, spoil: Callable[[Path], None], messages: list[str]
) -> None:
    spoil(signs)
    for ask in (inspect, load):
        with pytest.raises(DatasetError) as caught:
            ask(spec(signs))
        for message in messages:
            assert message in str(caught.value)


def test_an_image_that_breaks_off_is_named_when_it_is_decoded(signs: Path) -> None:
    for name in ("0002.png", "0010.jpg"):
        (file,) = signs.rglob(name)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(DatasetError, match=f"{file.relative_to(signs)} cannot be decoded"):
            load(spec(signs))


def test_images_that_have_changed_since_planning_are_refused(signs: Path) -> None:
    planned = spec(signs, content=inspect(spec(signs)).content)
    assert load(planned).fingerprint == planned.content
    next((signs / "train" / "stop").iterdir()).unlink()
    with pytest.raises(DatasetError, match="have changed since the sweep was planned"):
        load(planned)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_fingerprint_changes_exactly_when_names_or_contents_do(
    data: st.DataObject, tmp_path: Path
) -> None:
    """Not with the place, the order of writing or files that are no part of the data."""
    names = st.sampled_from(["a", "b", "c.d", "e f"])
    classes = data.draw(st.lists(names, min_size=2, max_size=3, unique=True))
    trees: list[dict[str, int]] = []
    contents = []
    for number in range(2):
        tree = {
            f"{split}/{name}/0.png": data.draw(st.integers(0, 1))
            for split in ("train", "test")
            for name in classes
        }
        if data.draw(st.booleans()):
            tree[f"train/{classes[0]}/1.png"] = 0
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name in data.draw(st.permutations(sorted(tree))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 3), tree[name]).save(folder / name)
        (folder / f"notes-{number}.txt").touch()
        trees.append(tree)
        contents.append(inspect(spec(folder)).content)
    assert (contents[0] == contents[1]) == (trees[0] == trees[1])


def test_the_evaluation_order_of_own_images_never_changes(signs: Path) -> None:
    order = evaluation_order(load(spec(signs)).y_test)
    assert order.tolist() == [4, 8, 2, 6, 10, 5, 1, 11, 7, 0, 9, 3]
