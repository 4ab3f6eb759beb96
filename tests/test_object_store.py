"""Output and cache on object stores: against servers of their protocols on loopback, faults included."""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from pyarrow import fs

from orchestrator.store.folder import Store
from tests.support.object_store import BUCKET, Fault, Proxy, Request, gcs_server, never, s3_server, seeded
from tests.support.sweeps import rows, sweep, times_counted, write_grid
from tests.test_pins import manifest
from workers import storage
from workers.pins import Pinned, pin, pinned_weights
from workers.storage import Folder

FAULTS: tuple[Fault, ...] = get_args(Fault)
UNITS = 30
SEED = 1


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def s3(server: Proxy) -> Iterator[Proxy]:
    server.fault = never
    server.forget()
    yield server
    server.fault = never


def test_a_folder_on_s3(s3: Proxy) -> None:
    folder = Folder.at(s3.uri("plain/out"))
    assert folder.files(recursive=True) == [] and folder.folders() == [] and not folder.exists()
    folder.publish("a/b/one", b"first")
    s3.forget()
    folder.publish("a/b/one", b"second")
    folder.publish("top", b"")
    assert s3.counts() == {"PUT": 2}  # nothing is asked for before, and no folder made
    assert folder.read("a/b/one") == b"second" and folder.read("top") == b""
    names = sorted(folder.relative(file.path) for file in folder.files(recursive=True))
    assert names == ["a/b/one", "top"]
    assert folder.folders() == ["a"] and folder.folders("a") == ["b"] and folder.exists("a/b")
    folder.delete("top")
    with pytest.raises(FileNotFoundError):
        folder.read("top")


def test_keys_of_the_environment_are_not_held_on_to(s3: Proxy) -> None:
    """A machine's own are renewed every few hours."""
    settings = Folder.at(s3.uri("x")).filesystem.__reduce__()[1][0]
    assert settings["access_key"] is None and settings["allow_delayed_open"]
    named = Folder.at(s3.uri("x").replace("s3://", "s3://me:mine@")).filesystem.__reduce__()[1][0]
    assert (named["access_key"], named["secret_key"]) == ("me", "mine")
    assert named["endpoint_override"] == settings["endpoint_override"] == f"127.0.0.1:{s3.port}"


def test_one_fault_of_each_kind_at_each_request_changes_nothing(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All kinds at once, since waits are what takes time; a slow answer takes longer than the 3 seconds that
    PyArrow would wait for it."""
    monkeypatch.setattr("tests.support.object_store.DELAY", 3.5)

    def one_of_each(request: Request) -> Fault | None:
        kind = _kind_of(request)
        slow = request.method in ("PUT", "GET") if kind == "delay" else True
        return kind if slow and not request.again else None

    s3.fault = one_of_each
    folders = _opened([s3.uri(f"each/{kind}") for kind in FAULTS])

    def try_all(folder: Folder) -> None:
        folder.publish("x", b"abc" * 1000)
        assert folder.read("x") == b"abc" * 1000
        assert [(file.base_name, file.size) for file in folder.files()] == [("x", 3000)]
        folder.delete("x")
        assert folder.files() == []

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        list(pool.map(try_all, folders))
    had = Counter((request.fault, request.method) for request in s3.requests if request.fault)
    kinds = [kind for kind in FAULTS if kind != "delay"]
    assert all(had[kind, method] for kind in kinds for method in ("PUT", "GET", "LIST", "DELETE"))
    assert had["delay", "PUT"] and had["delay", "GET"]
    # What is merely slow is asked for once.
    assert not [request for request in s3.requests if request.key == "each/delay/x" and request.again > 1]


def _opened(locations: list[str]) -> list[Folder]:
    """Folders for threads, who must not open them: PyArrow makes no client while a request of another one is
    under way, and waits for that with Python's lock held, without which the proxy cannot answer it."""
    return [Folder.at(location) for location in locations]


def _kind_of(request: Request) -> Fault | None:
    kind = request.key.split("/")[1] if request.key.count("/") else ""
    return next((fault for fault in FAULTS if fault == kind), None)


@pytest.mark.parametrize("size", [1000, 11 * 2**20], ids=["one request", "in parts"])
def test_what_cannot_be_written_is_not_there_in_part(
    s3: Proxy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(storage, "_ATTEMPTS", 2)
    folder = Folder.at(s3.uri(f"partial{size}"))
    # Of a large file the second part fails, once the first is there.
    s3.fault = lambda request: "cut" if request.method == "PUT" and (request.again or size == 1000) else None
    with pytest.raises(OSError):
        folder.publish("x", os.urandom(size))
    s3.fault = never
    assert folder.files(recursive=True) == [] and not folder.exists("x")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("local")
    assert sweep(moods(folder, UNITS), folder / "out").exit_code == 0
    return rows(folder / "out")


def moods(folder: Path, units: int) -> Path:
    return write_grid(folder / f"{units}.yaml", examples=5 * units, slice=5)


def test_a_sweep_under_faults_has_the_same_rows(s3: Proxy, tmp_path: Path, expected: pa.Table) -> None:
    s3.fault = seeded(SEED, 0.08, FAULTS)
    output = s3.uri("faults")
    summary = sweep(moods(tmp_path, UNITS), output)
    had = Counter(request.fault for request in s3.requests)
    assert summary.exit_code == 0 and summary.state.retries == 0
    assert sum(had[kind] for kind in FAULTS) > 3, had
    s3.fault = never
    found = rows(output)
    assert found.equals(expected) and times_counted(found) == {1: expected.num_rows}
    accepted = Store(output).accepted_shards()
    assert (len(accepted.infos), accepted.twice, accepted.set_aside, accepted.unreadable) == (
        UNITS,
        [],
        [],
        [],
    )


def test_a_store_that_is_gone_for_good_ends_a_run_that_resumes(
    s3: Proxy, tmp_path: Path, expected: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that cannot be written are failures of their units, and nothing of them is there."""
    monkeypatch.setattr(storage, "_ATTEMPTS", 1)
    grid, output = moods(tmp_path, UNITS), s3.uri("gone")
    shards = itertools.count(1)

    def every_third(request: Request) -> Fault | None:
        shard = request.method == "PUT" and "/shards/" in request.key
        return "slow_down" if shard and next(shards) % 3 == 0 else None

    s3.fault = every_third
    summary = sweep(grid, output)
    assert summary.exit_code == 1 and summary.state.units_failed > 0
    s3.fault = never
    assert sweep(grid, output, retry_failed=True).exit_code == 0
    assert rows(output).equals(expected)


def test_requests_of_a_unit(s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PUT for its shard, a HEAD and a GET to check it, two GETs for the rows. What a run needs beside that
    does not depend on how many units it has, but for what is asked for now and then."""
    for place in (
        *("workers.pins.FRESH_SECONDS", "orchestrator.run.status.FAR_SECONDS"),
        *("orchestrator.run.upkeep.INDEX_SECONDS", "orchestrator.run.events.FAR_SECONDS"),
    ):
        monkeypatch.setattr(place, 1e6)
    counts = {}
    for units in (5, 15):
        s3.forget()
        assert sweep(moods(tmp_path, units), s3.uri(f"count{units}")).exit_code == 0
        counts[units] = s3.counts()
    more = {name: counts[15][name] - counts[5][name] for name in counts[15]}
    assert more == {"PUT": 10, "GET": 30, "HEAD": 10, "LIST": 0, "DELETE": 0}
    assert sum(counts[15].values()) <= 5 * 15 + 80
    s3.forget()
    assert sweep(moods(tmp_path, 15), s3.uri("count15")).state.units == 0
    assert sum(s3.counts().values()) <= 65  # what is done is known from the index


def test_runs_that_have_left_much_are_looked_at_in_one_listing(s3: Proxy) -> None:
    output = s3.uri("runs")
    folder = Folder.at(output)
    for run in ("000001-a", "000002-b", "000010-c"):
        for name in ("status.json", "training/x.json", "training/y.json"):
            folder.publish(f"runs/{run}/{name}", b"{}")
        folder.publish(f"runs/{run[:6]}.claim", b"")
    s3.forget()
    assert Store(output).latest_runs(2) == ["000002-b", "000010-c"]
    assert s3.counts() == {"LIST": 1}


def test_pins_at_once_and_pins_seen(s3: Proxy) -> None:
    """Two workers that have both found no pin go by the smaller hash; one that knows it does not ask again
    for every unit."""
    weights = ["b" * 64, "a" * 64]
    here, changed = set[str](), threading.Condition()

    def fault(request: Request) -> Fault | None:
        """None; but a pin is not written before the other one is about to be, however often it is tried."""
        if request.method == "PUT":
            with changed:
                here.add(request.key)
                changed.notify_all()
                changed.wait_for(lambda: len(here) == 2, timeout=60)
        return None

    s3.fault = fault
    outputs = _opened([s3.uri("pins") for _ in weights])

    def worker(output: Folder, own: str) -> str:
        return pin(output, manifest("v", own)).weights

    with ThreadPoolExecutor(2) as pool:
        pool_said = list(pool.map(worker, outputs, weights))
    s3.fault = never
    output = Folder.at(s3.uri("pins"))
    assert pinned_weights(output) == {"v": "a" * 64} and pool_said[1] == "a" * 64
    now = 0.0
    pinned = Pinned(output, clock=lambda: now)
    s3.forget()
    assert [pinned.weights("v") for _ in range(5)] == ["a" * 64] * 5
    assert s3.counts() == {"LIST": 1}
    assert pinned.weights("w") is None  # what is not known to be pinned is looked up
    output.publish(f"pins/v.{'0' * 64}.json", b"{}")
    now = 19.0
    assert pinned.weights("v") == "a" * 64
    now = 60.0
    assert pinned.weights("v") == "0" * 64


def test_a_claim_of_what_is_claimed(s3: Proxy) -> None:
    folder = Folder.at(s3.uri("claims"))
    assert folder.claim("runs/000001.claim") and not folder.claim("runs/000001.claim")
    store = Store(s3.uri("claims"))
    with store.new_run() as one, store.new_run() as two:
        assert (one[:6], two[:6]) == ("000002", "000003")


def test_a_sweep_on_gcs_under_faults(
    tmp_path: Path, expected: pa.Table, capfd: pytest.CaptureFixture[str]
) -> None:
    with gcs_server(seed=3, share=0.04) as gcs:
        output = gcs.uri("out")
        assert isinstance(Folder.at(output).filesystem, fs.GcsFileSystem)
        assert sweep(moods(tmp_path, UNITS), output).exit_code == 0
        assert rows(output).equals(expected)
        folder = Folder.at(output)
        assert {file.base_name for file in folder.files("tables")} >= {"cells.parquet", "robustness.md"}
    # What the server says in the end; names of shards are random, and so is what happens to them.
    said = capfd.readouterr().out
    assert any(f"'{kind}': " in said for kind in ("error", "slow_down", "delay"))


def test_the_bucket_is_none_of_the_folder(s3: Proxy) -> None:
    with pytest.raises(OSError):
        Folder.at(s3.uri("x").replace(f"//{BUCKET}/", "//elsewhere/")).publish("a", b"")
