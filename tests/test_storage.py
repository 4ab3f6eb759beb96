"""Publishing: whole or not at all, on a local disk and on an object store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from workers.storage import Folder


@pytest.fixture(params=["local", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder.at(tmp_path / "out")
    return Folder(fs._MockFileSystem(), "bucket/out")


def test_publish_then_read(folder: Folder) -> None:
    assert folder.files(recursive=True) == []
    assert not folder.exists()
    folder.publish("a/b/one.json", b"first")
    folder.publish("a/b/one.json", b"second")
    folder.publish("top", b"")
    assert folder.read("a/b/one.json") == b"second"
    names = sorted(folder.relative(file.path) for file in folder.files(recursive=True))
    assert names == ["a/b/one.json", "top"]
    assert [file.base_name for file in folder.files("a/b")] == ["one.json"]
    folder.delete("top")
    assert not folder.exists("top")
    with pytest.raises(FileNotFoundError):
        folder.read("top")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.at(tmp_path)
    folder.publish("kept", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.publish("kept", b"new")
    assert folder.read("kept") == b"old"
    assert os.listdir(tmp_path) == ["kept"]


def test_temporary_files_of_a_crash_are_no_files(tmp_path: Path) -> None:
    (tmp_path / ".0123.tmp").write_bytes(b"half")
    assert Folder.at(tmp_path).files() == []


@pytest.mark.parametrize("name", ["with space", "ünïcode", "100%", "a#b?c", "quo'te"])
def test_odd_folder_names(tmp_path: Path, name: str) -> None:
    folder = Folder.at(tmp_path / name)
    folder.publish("x/y", b"data")
    assert Folder.at(str(tmp_path / name)).read("x/y") == b"data"


def test_locations() -> None:
    assert Folder.at("some/where").path == os.path.abspath("some/where")
    assert Folder.at("~/here").path == os.path.expanduser("~/here")
    assert Folder.at("file:///some/where").path == "/some/where"
    assert isinstance(Folder.at("s3://bucket/x?region=us-east-1").filesystem, fs.S3FileSystem)
    with pytest.raises(ValueError, match="cannot open nonsense://x"):
        Folder.at("nonsense://x")


@given(st.binary(max_size=10_000))
def test_bytes_survive(data: bytes) -> None:
    folder = Folder(fs._MockFileSystem(), "bucket")
    folder.publish("x", data)
    assert folder.read("x") == data
