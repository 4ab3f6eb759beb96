"""Copies of victims' weights on a machine, of a cache that lies elsewhere."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers import node
from workers.victims import copies

DATA = b"weights" * 1000
NAME = hashlib.sha256(DATA).hexdigest()


def holds(data: bytes, name: str) -> bool:
    return hashlib.sha256(data).hexdigest() == name


class Cache:
    """Counts how often it is read; all readers of a first time are let wait for each other."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data, self.times = data, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.data


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def copied() -> list[Path]:
    return [file for file in node.shared("victims-1").glob("*") if file.suffix != ".lock"]


def test_a_machine_fetches_a_victim_once(machine: Path) -> None:
    cache, ready = Cache(), threading.Barrier(8)

    def worker(number: int) -> bytes:
        ready.wait()
        return copies.content(NAME, cache, holds)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(worker, range(8))) == {DATA}
    assert cache.times == 1 and [file.name for file in copied()] == [NAME]
    assert copied()[0].parents[1] == machine / f"robustsweep-{os.getuid()}"


def test_a_copy_that_is_wrong_is_fetched_again() -> None:
    cache = Cache()
    copies.content(NAME, cache, holds)
    for damage in (b"", DATA[:-1], DATA + b"x"):
        copied()[0].write_bytes(damage)
        before = cache.times
        assert copies.content(NAME, cache, holds) == DATA and cache.times == before + 1
        assert copies.content(NAME, cache, holds) == DATA and cache.times == before + 1
    copied()[0].unlink()
    assert copies.content(NAME, cache, holds) == DATA


def test_what_a_cache_has_wrong_is_not_kept() -> None:
    cache = Cache(b"other")
    assert copies.content(NAME, cache, holds) == b"other"  # as it is: whoever asked sees that it is wrong
    assert copied() == []


@pytest.mark.parametrize("name", ["", "../../x", "/etc/x", NAME.upper(), f"{NAME}\n", f"../{NAME}"])
def test_what_a_manifest_says_becomes_no_path(machine: Path, name: str) -> None:
    cache = Cache()
    assert copies.content(name, cache, lambda data, name: True) == DATA
    assert list(machine.rglob("*")) == []


def test_without_a_place_the_cache_is_read(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        assert copies.content(NAME, cache, holds) == DATA and copied() == []
    folder = machine / f"robustsweep-{os.getuid()}"
    moved = machine / "elsewhere"
    folder.rename(moved)
    folder.symlink_to(moved)  # put there by somebody else
    assert copies.content(NAME, cache, holds) == DATA and copied() == []
    (moved / "victims-1" / NAME).write_bytes(DATA)  # what they put there is not even looked at
    assert copies.content(NAME, cache, holds) == DATA
    assert cache.times == 3


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_an_error_of_the_cache_is_its_own() -> None:
    tries = []

    def down() -> bytes:
        tries.append(1)
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        copies.content(NAME, down, holds)
    assert len(tries) == 1
