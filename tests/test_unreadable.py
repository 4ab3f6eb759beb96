"""An error in reading is not a broken file: nothing is thrown away, recomputed or left out in silence."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import clean
from orchestrator.cli import app
from orchestrator.errors import StoreError
from orchestrator.grid.load import load_grid
from orchestrator.run.prepare import prepare
from orchestrator.store.folder import Store
from tests.support.runners import made_up_manifest
from tests.support.sweeps import rows, sweep, times_counted, write_grid
from tests.support.victims import some_victim
from workers import layout
from workers.storage import Folder
from workers.unit import Training
from workers.victims.cache import VictimCache


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "moods.yaml")


@pytest.fixture
def output(grid: Path, tmp_path: Path) -> Path:
    """A finished sweep whose index is lost, so that every footer has to be read."""
    output = tmp_path / "out"
    assert sweep(grid, output).exit_code == 0
    forget(output)
    return output


def forget(output: Path) -> None:
    for segment in (output / "index").rglob("*.parquet"):
        segment.unlink()


def pauses(patch: pytest.MonkeyPatch, module: str) -> list[float]:
    """The seconds that this thread's calls of a module's `time.sleep` ask for from now on, which take none.

    There is one `time.sleep` in a process: threads that other tests have left in it sleep as they do.
    """
    slept: list[float] = []
    here, sleep = threading.current_thread(), time.sleep

    def sleeping(seconds: float) -> None:
        if threading.current_thread() is here:
            slept.append(seconds)
        else:
            sleep(seconds)

    patch.setattr(f"{module}.time.sleep", sleeping)
    return slept


class Busy:
    """Storage that answers the first `times` reads of each file with an error."""

    def __init__(self, times: int, name: str = "") -> None:
        self.times, self.name = times, name
        self.asked: Counter[str] = Counter()
        self.slept: list[float] = []

    def install(self, patch: pytest.MonkeyPatch, what: str) -> None:
        original = getattr(Folder, what)

        def read(folder: Folder, name: str, *rest: int) -> object:
            self.asked[name] += 1
            if self.name in folder.join(name) and self.asked[name] <= self.times:
                raise OSError(24, "Too many open files")
            return original(folder, name, *rest)

        patch.setattr(Folder, what, read)
        self.slept = pauses(patch, "orchestrator.store.listing")


def test_an_error_that_passes_is_waited_for(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy(times=2)
    busy.install(monkeypatch, "tail")
    accepted = Store(str(output)).accepted_shards()
    assert (accepted.set_aside, accepted.unreadable) == ([], [])
    assert times_counted(rows(output)) == {1: 200}
    assert len(busy.slept) == 2 and set(busy.asked.values()) == {3 + 1}  # and once more for `rows`


def test_what_cannot_be_read_is_neither_broken_nor_missing(
    grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = sorted(path.name for path in (output / "shards").rglob("*.parquet"))
    with monkeypatch.context() as patch:
        Busy(times=10**6, name=first).install(patch, "tail")
        accepted = Store(str(output)).accepted_shards()
        assert [one.name.rpartition("/")[2] for one in accepted.unreadable] == [first]
        assert "Too many open files" in accepted.unreadable[0].reason and accepted.set_aside == []
        assert clean.removable_output(str(output)) == []
        prepared = prepare(load_grid(str(grid)), str(output))
        assert any("cannot read shards/" in warning for warning in prepared.warnings)
        before = sorted(output.rglob("*"))
        with pytest.raises(StoreError, match=r"1 shards in .* cannot be read now, .*run the command again"):
            sweep(grid, output)
        assert sorted(output.rglob("*")) == before
        shown = CliRunner().invoke(app, ["table", str(output)])
        assert "cannot read shards/" in shown.stderr and "partial 50/100" in shown.stdout
    assert sweep(grid, output).state.units == 0
    assert times_counted(rows(output)) == {1: 200}


def test_the_index_spares_the_reading(grid: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep(grid, output)
    Busy(times=10**6).install(monkeypatch, "tail")
    assert Store(str(output)).accepted_shards().unreadable == []


def test_a_shard_that_went_while_it_was_looked_at_is_none(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = sorted((output / "shards").rglob("*.parquet"))
    listed = Store(str(output)).shards.files(recursive=True)
    monkeypatch.setattr(
        Folder, "files", lambda folder, name="", **_: listed if folder.path.endswith("shards") else []
    )
    first.unlink()
    accepted = Store(str(output)).accepted_shards()
    assert len(accepted.infos) == 1 and accepted.set_aside == accepted.unreadable == []


def test_a_large_footer_is_read_whole(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.shards._TAIL_BYTES", 100)
    store = Store(str(output))
    assert len(store.accepted_shards().infos) == 2
    for path in (output / "shards").rglob("*.parquet"):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    assert len(store.accepted_shards().set_aside) == 2


def test_a_cached_victim_that_cannot_be_read_is_neither_trained_again_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path / "victims")
    victim, weights = some_victim("v"), "a" * 64
    folder.publish(layout.cached_weights("v", weights), b"arrays")
    folder.publish(
        layout.cached_manifest("v", weights), made_up_manifest(Training("t", victim), weights).to_json()
    )
    cache = VictimCache(folder)
    assert cache.find("v") is None  # broken: no HDF5
    original = Folder.read

    def read(self: Folder, name: str) -> bytes:
        if name.endswith(".h5"):
            raise OSError("503 slow down")
        return original(self, name)

    monkeypatch.setattr(Folder, "read", read)
    with pytest.raises(OSError, match="503"):
        cache.find("v")
    assert [entry.state for entry in cache.entries()] == ["unreadable"]
    assert clean.removable_victims(str(tmp_path / "victims"), []) == []


@pytest.mark.parametrize(("times", "ends"), [(1, True), (3, True), (4, False)])
def test_a_file_is_read_with_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, ends: bool
) -> None:
    slept = pauses(monkeypatch, "workers.storage")
    folder = Folder.at(tmp_path)
    folder.publish("x", b"data")
    left = [times]

    class Flaky:
        def __getattr__(self, name: str) -> object:
            return getattr(folder.filesystem, name)

        def open_input_file(self, path: str) -> object:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError("503 slow down")
            return folder.filesystem.open_input_file(path)

    flaky = Folder(Flaky(), folder.path)  # type: ignore[arg-type]
    if ends:
        assert flaky.read("x") == b"data"
    else:
        with pytest.raises(OSError, match="503"):
            flaky.read("x")
    assert len(slept) == min(times, 3) and slept == sorted(slept)
    slept.clear()
    with pytest.raises(FileNotFoundError):
        folder.read("y")
    assert slept == []
