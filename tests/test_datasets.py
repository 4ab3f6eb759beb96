"""Datasets: what is loaded, what is refused, and the order of evaluation."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.real_data import REAL_DATA, needs_real_data
from workers import datasets
from workers.datasets import (
    DATASETS,
    DatasetError,
    evaluation_order,
    inspect,
    load,
    splitmix64,
    stratified_order,
)
from workers.unit import DatasetSpec


def mnist_arrays(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (30, 28, 28), np.uint8),
        "y_train": random.integers(0, 10, 30, np.uint8),
        "x_test": random.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": random.integers(0, 10, 20, np.uint8),
    }
    return arrays | changes


def mnist_folder(tmp_path: Path, **changes: Any) -> str:
    np.savez_compressed(tmp_path / "mnist.npz", **mnist_arrays(**changes))
    return str(tmp_path)


def test_digits_are_scaled_and_split_as_the_table_says() -> None:
    digits = load(DatasetSpec(name="digits"))
    source = DATASETS["digits"].info
    assert digits.x_train.shape == (source.train_size, *source.shape)
    assert digits.x_test.shape == (source.test_size, *source.shape)
    assert digits.images("test", slice(None)).dtype == np.float32
    assert (digits.x_test.min(), digits.x_test.max()) == (0, 1)
    counts = np.bincount(digits.y_test)
    assert counts.min() >= 48 and counts.max() <= 52
    together = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    original = load_digits().images.reshape(1797, -1) / 16
    assert sorted(map(tuple, together)) == sorted(map(tuple, original.astype(np.float32)))


@pytest.fixture(autouse=True)
def node_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large data are mapped from the system's temporary folder: here, from one that starts empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_evaluation_order_of_digits_never_changes() -> None:
    order = evaluation_order(load(DatasetSpec(name="digits")).y_test)
    # fmt: off
    assert order[:20].tolist() == [
        410, 94, 303, 366, 319, 33, 291, 285, 254, 203, 230, 2, 392, 53, 249, 287, 317, 102, 179, 42,
    ]
    # fmt: on


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs for seed 1234567, as the reference implementation in C prints them.
    assert splitmix64(1234567, 3).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 2**64 - 1))
def test_every_prefix_is_near_stratified(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    order = stratified_order(labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    share = np.array(counts) / len(labels)
    bound = 0.5 + share * (len(counts) - 2) / 2
    if len(set(counts)) == 1:
        assert (bound < 1).all() or len(counts) == 1
    so_far = np.cumsum(labels[order][:, None] == np.arange(len(counts)), axis=0)
    proportional = np.arange(1, len(labels) + 1)[:, None] * share
    assert (np.abs(so_far - proportional) <= bound + 1e-9).all()


@given(labels=st.lists(st.integers(0, 3), min_size=2, max_size=50))
def test_the_order_depends_on_the_seed_alone(labels: list[int]) -> None:
    array = np.array(labels)
    assert (stratified_order(array, 7) == stratified_order(array, 7)).all()
    assert (
        stratified_order(np.zeros(100, int), 7).tolist() != stratified_order(np.zeros(100, int), 8).tolist()
    )


def test_npz_is_read_and_normalised(tmp_path: Path) -> None:
    arrays = mnist_arrays(y_test=np.arange(20).reshape(20, 1) % 10)
    mnist = load(DatasetSpec(name="mnist"), mnist_folder(tmp_path, **arrays))
    assert mnist.x_train.dtype == np.uint8  # kept small
    images = mnist.images("train", np.array([3, 5]))
    assert images.shape == (2, 28, 28, 1)
    np.testing.assert_array_equal(images[..., 0], arrays["x_train"][[3, 5]] / np.float32(255))
    labels = mnist.labels("test", np.array([12]))
    assert labels.tolist() == [2] and labels.dtype == np.int64


def test_the_environment_names_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.DATA_VARIABLE, mnist_folder(tmp_path))
    assert inspect(DatasetSpec(name="mnist")).test_size == 20
    assert len(load(DatasetSpec(name="mnist")).y_train) == 30


def test_the_data_folder_may_be_a_uri(tmp_path: Path) -> None:
    uri = f"file://{mnist_folder(tmp_path)}"
    assert inspect(DatasetSpec(name="mnist"), uri).test_size == 20
    assert len(load(DatasetSpec(name="mnist"), uri).y_test) == 20


def test_size_without_a_file_is_the_tables(tmp_path: Path) -> None:
    assert inspect(DatasetSpec(name="cifar100"), str(tmp_path)).test_size == 10_000
    assert inspect(DatasetSpec(name="digits"), str(tmp_path)).test_size == 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((20, 8, 8), np.uint8)}, r"x_test has images of shape \(8, 8"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, int)}, "x_test is empty"),
        ({"x_test": np.zeros((19, 28, 28), np.uint8)}, "19 images in x_test, 20 labels"),
        ({"x_train": np.full((30, 28, 28), np.nan, np.float32)}, "x_train holds NaN"),
        ({"x_train": np.full((30, 28, 28), 255, np.float32)}, r"values in \[255, 255\]"),
        ({"x_train": np.zeros((30, 28, 28), np.int64)}, "x_train is of type int64"),
        ({"y_train": np.full(30, 10)}, "labels from 10 to 10; 0 to 9 are allowed"),
        ({"y_train": np.full(30, -1)}, "labels from -1 to -1"),
        ({"y_train": np.zeros(30, np.float32)}, "y_train is float32"),
    ],
)
def test_malformed_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = mnist_folder(tmp_path, **changes)
    for ask in (inspect, load):  # all of it shows in headers, labels and the first images
        with pytest.raises(DatasetError, match=message):
            ask(DatasetSpec(name="mnist"), folder)


def test_malformed_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=np.zeros(3))
    with pytest.raises(DatasetError, match="lacks y_train, x_test, y_test"):
        load(DatasetSpec(name="mnist"), str(tmp_path))
    with pytest.raises(DatasetError, match="lacks y_train, x_test, y_test; it has x_train"):
        inspect(DatasetSpec(name="mnist"), str(tmp_path))
    for content in (
        b"",
        b"neither zip nor numpy",
        Path(mnist_folder(tmp_path), "mnist.npz").read_bytes()[:5000],
    ):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match="not a readable"):
            load(DatasetSpec(name="mnist"), str(tmp_path))
        with pytest.raises(DatasetError, match="not a readable"):
            inspect(DatasetSpec(name="mnist"), str(tmp_path))


def test_an_unknown_dataset_is_named_with_those_allowed() -> None:
    with pytest.raises(DatasetError, match='unknown dataset "mnits"; allowed: cifar10, '):
        load(DatasetSpec(name="mnits"))


@pytest.mark.tf
def test_a_failed_download_names_the_file_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    def refused() -> None:
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", refused)
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    with pytest.raises(DatasetError, match=f"URL fetch failure.*put cifar10.npz.* as {tmp_path}/cifar10.npz"):
        load(DatasetSpec(name="cifar10"), str(tmp_path))
    with pytest.raises(DatasetError, match=f"in a folder that --data-dir or {datasets.DATA_VARIABLE} names"):
        load(DatasetSpec(name="cifar10"))


class _Server(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


def test_whether_a_dataset_can_be_had_is_known_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the data folder, in Keras' own, or on the server that Keras asks: a real one, on this machine."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "*")
    server = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def origin(url: str) -> None:
        monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], origin=url))

    def check() -> None:
        datasets.ensure_obtainable(DatasetSpec(name="mnist"), str(tmp_path))

    try:
        origin(f"{address}/there")
        check()
        origin(f"{address}/gone")
        with pytest.raises(DatasetError, match=f"404.*put mnist.npz.* as {tmp_path}/mnist.npz"):
            check()
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(DatasetError, match="refused"):
        check()
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    (tmp_path / "keras" / "datasets" / "mnist.npz").touch()
    check()
    (tmp_path / "keras" / "datasets" / "mnist.npz").unlink()
    mnist_folder(tmp_path)
    check()
    datasets.ensure_obtainable(DatasetSpec(name="digits"))


@pytest.mark.tf
def test_where_keras_keeps_what_it_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files whose presence counts as having a dataset are those that Keras would fetch first."""
    import keras

    asked = []

    def record(fname: str, origin: str, cache_subdir: str = "datasets", **rest: object) -> str:
        asked.append((f"{cache_subdir}/{fname}{'_archive' if rest.get('extract') else ''}", origin))
        raise OSError

    for name, source in DATASETS.items():
        if source.origin:
            module = sys.modules[getattr(keras.datasets, name).load_data.__module__]
            monkeypatch.setattr(module, "get_file", record)
            asked.clear()
            with pytest.raises(DatasetError):
                load(DatasetSpec(name=name), str(tmp_path))
            if name == "fashion_mnist":  # its first file is a small one, with the labels
                asked = [(one.replace("labels-idx1", "images-idx3") for one in asked[0])]
            assert tuple(asked[0]) == (source.cached, source.origin)


@needs_real_data
def test_only_other_data_have_another_fingerprint(tmp_path: Path) -> None:
    """The same pixels in another archive are the same data; one label more or less is not."""
    original = dict(np.load(REAL_DATA / "fashion_mnist.npz"))
    fingerprint = load(DatasetSpec(name="fashion_mnist"), str(REAL_DATA)).fingerprint

    def repacked(**changes: Any) -> str:
        np.savez(tmp_path / "fashion_mnist.npz", **{**original, **changes})
        return load(DatasetSpec(name="fashion_mnist"), str(tmp_path)).fingerprint

    assert repacked(y_test=original["y_test"].astype(np.int64)[:, None]) == fingerprint
    labels = original["y_test"].copy()
    labels[3] = (labels[3] + 1) % 10
    assert repacked(y_test=labels) != fingerprint
    assert repacked(x_test=original["x_test"][:-1], y_test=original["y_test"][:-1]) != fingerprint


@needs_real_data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_real_files_load(name: str) -> None:
    data = load(DatasetSpec(name=name), str(REAL_DATA))
    info = inspect(DatasetSpec(name=name), str(REAL_DATA))
    assert (info.train_size, info.test_size) == (len(data.y_train), len(data.y_test))
    assert data.x_test.shape[1:] == data.shape
    some = data.images("test", np.arange(10))
    assert some.min() >= 0 and 0.5 < some.max() <= 1
    first = data.y_test[evaluation_order(data.y_test)[:100]]
    proportional = 100 * np.bincount(data.y_test, minlength=10) / len(data.y_test)
    assert np.abs(np.bincount(first, minlength=10) - proportional).max() <= 1


def test_importing_the_registries_imports_neither_tensorflow_nor_sklearn() -> None:
    program = (
        "import sys, workers.datasets, workers.defences, workers.pins, workers.victims.architectures, "
        "workers.recipe, workers.attacks; "
        "print([name for name in ('tensorflow', 'keras', 'sklearn', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
