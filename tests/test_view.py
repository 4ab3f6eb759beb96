"""`robustsweep view`: a page that fills in, and a server that answers nobody else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.errors import QueryError
from orchestrator.results.query import answering
from orchestrator.store.folder import Store
from orchestrator.store.locate import existing_outputs
from orchestrator.view import watch
from orchestrator.view.server import LONGEST_STATEMENT, Server
from orchestrator.view.watch import Watched
from tests.support.browser import needs_chromium, opened, running
from tests.support.results import Cell, results_of
from tests.support.sweeps import record, sweep, write_grid

EVIL = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Half of a sweep: the attack `second` is missing."""
    grid = write_grid(
        tmp_path / "grid.yaml",
        attacks=[
            {"name": name, "factory": "tests.support.runners:Misbehaving", "mood": "work", "label": name}
            for name in ("first", "second")
        ],
        models=[{"name": "small_cnn", "label": EVIL}],
    )
    sweep(grid, tmp_path / "out", only=("attack=first",))
    return tmp_path / "out"


def finish(folder: Path) -> None:
    sweep(folder.parent / "grid.yaml", folder)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    watched = Watched(existing_outputs([str(folder)]))
    with Server(watched) as server:
        watched.start()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            watched.close()


def call(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """`path` stands behind the token, unless it begins with a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        known = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path if path[:1] == "/" else f"/{server.token}/{path}", body, known)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def ask(server: Server, sql: object, **headers: str) -> tuple[int, Any]:
    kind = {"Content_Type": "application/json", **headers}
    status, _, body = call(server, "POST", "query", json.dumps({"sql": sql}).encode(), **kind)
    return status, json.loads(body) if body[:1] == b"{" else body


def test_only_who_has_the_address_is_answered_and_nothing_can_be_changed(folder: Path) -> None:
    with serving(folder) as server:
        assert server.server_address[0] == "127.0.0.1"
        before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*.parquet"))
        status, headers, page = call(server, "GET", "")
        assert status == 200 and page.startswith(b"<!doctype html>")
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy and headers["Cache-Control"] == "no-store"
        assert headers["Access-Control-Allow-Origin"] is None
        own = f"127.0.0.1:{server.port}"
        refused: list[tuple[int, str, str, dict[str, str]]] = [
            (404, "GET", "/", {}),
            (404, "GET", f"/{server.token[:-1]}x/", {}),
            (404, "GET", f"/{server.token}", {}),
            (404, "GET", f"/{server.token}/../etc/passwd", {}),
            (404, "GET", "other", {}),
            (404, "POST", "status", {}),
            (403, "GET", "", {"Host": f"evil.example:{server.port}"}),  # a name that was made to point here
            (403, "GET", "", {"Host": "127.0.0.1"}),
            (403, "GET", "", {"Origin": "http://evil.example"}),
            (403, "GET", "", {"Origin": "null"}),
            (501, "PUT", "", {}),
            (501, "DELETE", "", {}),
            (415, "POST", "query", {"Content_Type": "text/plain"}),  # which a form of any page can send
        ]
        for expected, method, path, headers_sent in refused:
            found, _, body = call(server, method, path, **headers_sent)
            assert found == expected, (method, path, headers_sent)
            assert b"small_cnn" not in body and server.token.encode() not in body
        assert (
            call(server, "GET", "status", Host=f"localhost:{server.port}", Origin=f"http://{own}")[0] == 200
        )
        assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*.parquet"))


def test_sql_is_that_of_query_and_its_answers_have_an_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder) as server:
        assert ask(server, "SELECT attack, count(*) AS n FROM cells GROUP BY ALL ORDER BY ALL") == (
            200,
            {"columns": ["attack", "n"], "rows": [["first", 2], ["second", 2]], "more": False},
        )
        assert ask(server, "SELECT 'nan'::DOUBLE, NULL, 1.5::DECIMAL(3,1)")[1]["rows"] == [[None, None, 1.5]]
        for sql, message in (
            ("SELECT * FROM read_csv('/etc/passwd')", "read_csv() is not allowed"),
            ("DROP VIEW cells", "DROP"),
            ("SELECT model FROM cellz", 'there is no view "cellz"'),
        ):
            status, found = ask(server, sql)
            assert status == 422 and message in found["error"]
        monkeypatch.setattr(watch, "ROWS", 10)
        status, found = ask(server, "FROM examples")
        assert (len(found["rows"]), found["more"]) == (10, True)
        monkeypatch.setattr(watch, "BYTES", 100)
        assert "are larger than" in ask(server, "FROM examples")[1]["error"]
        assert ask(server, 7)[0] == 400
        kind = {"Content_Type": "application/json"}
        assert call(server, "POST", "query", b"{", **kind)[0] == 400
        assert call(server, "POST", "query", b"[" * 50_000, **kind)[0] == 400
        assert call(server, "POST", "query", b" " * (LONGEST_STATEMENT + 1), **kind)[0] == 413
        assert call(server, "POST", "query", **kind, Content_Length="x")[0] == 411


def test_a_query_that_takes_too_long_is_ended() -> None:
    sql = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b"
    begun = time.monotonic()
    with (
        pytest.raises(QueryError, match="the query took longer than 1 s"),
        answering(results_of([Cell()]), sql, seconds=1, threads=1) as answer,
    ):
        list(answer.batches)
    assert time.monotonic() - begun < 20


def test_a_port_in_use_is_one_clear_error(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["view", str(folder), "--port", str(port)])
    assert result.exit_code == 2
    assert f"--port: cannot listen on port {port}: Address already in use" in result.stderr
    for arguments, message in (
        ([str(folder), "--port", "70000"], "found 70000; 0 to 65535 is allowed"),
        ([str(folder / "none")], "no such output folder"),
    ):
        result = CliRunner().invoke(app, ["view", *arguments])
        assert result.exit_code == 2 and message in result.stderr


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """What is started in a shell's background ignores SIGINT, and so does all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_ends_it_cleanly(folder: Path) -> None:
    command = [sys.executable, "-m", "robustsweep", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            # Also while a question is being answered that would take hours.
            question = threading.Thread(target=_ask_for_hours, args=(address,))
            question.start()
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0 and process.stderr.read() == ""
            question.join()
        finally:
            process.kill()


def _ask_for_hours(address: str) -> None:
    sql = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}query", json.dumps({"sql": sql}).encode(), headers)
    with suppress(OSError, http.client.HTTPException):  # its server is ended
        urllib.request.urlopen(request, timeout=30).read()


def eventually(look: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_it_reads_again_what_has_changed_and_only_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SHARE", 1.0)
    watched = Watched(existing_outputs([str(folder)]))
    watched.start()
    try:
        assert "2 of 4 cells are done; 2 missing." in watched.content.body
        time.sleep(0.5)
        assert watched.version == 1
        finish(folder)
        eventually(lambda: "All 4 cells are done." in watched.content.body)
        os.rename(folder, f"{folder}-away")
        eventually(lambda: watched.problem != "")
        assert "All 4 cells are done." in watched.content.body  # what was read before
        os.rename(f"{folder}-away", folder)
        eventually(lambda: watched.problem == "")
    finally:
        watched.close()


def test_what_runs_now_is_what_runs_say(folder: Path) -> None:
    store = Store(str(folder))
    watched = Watched({"out": store})
    (run,) = watched.status()["runs"]
    assert (run["state"], run["workers"], run["left"]) == ("finished", {}, "")
    watched = Watched({"out": store})
    run_id = store.run_ids()[-1]
    status = record(run_id=run_id, workers={"w-1": "bim linf"}, seconds_left=90.0, failures=[EVIL])
    # Its clock is years ahead: only its sequence number can say whether it lives.
    for sequence, state in ((3, "unknown"), (4, "running"), (4, "running")):
        store.write_status(replace(status, sequence=sequence))
        (run,) = watched.status()["runs"]
        assert run["state"] == state
        assert run["left"] == ("about 1 min 30 s left" if state == "running" else "")
    store.write_status(replace(status, pid=2**22 + 1))
    assert watched.status()["runs"][0]["state"] == "dead"


@needs_chromium
def test_a_page_fills_in_while_a_sweep_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(watch, "SHARE", 1.0)
    with serving(folder) as server, running() as browser, opened(browser, server.address) as watched:
        page = watched.page
        assert "2 of 4 cells are done; 2 missing." in page.inner_text("#answer")
        page.locator("#status strong", has_text="finished").wait_for()
        page.click("details.filter[data-key=attack] summary")
        page.get_by_role("checkbox", name="first").uncheck()
        page.keyboard.press("Escape")
        page.locator("table.robustness th", has_text="clean").get_by_role("button").click()
        page.fill("#statement", "SELECT model, model_label, NULL AS nothing FROM cells")
        page.press("#statement", "Control+Enter")
        page.wait_for_selector("#answered td")
        assert page.inner_text("#asked") == "4 rows" and EVIL in page.inner_text("#answered")

        finish(folder)
        page.get_by_text("All 4 cells are done.").wait_for(timeout=20_000)
        # As it was: what is chosen, what is sorted, what was asked.
        rows = watched.texts("table.robustness tbody tr")
        assert rows and not any("first" in row for row in rows)
        assert page.locator("table.robustness th[aria-sort=ascending]").inner_text() == "clean"
        assert page.input_value("#statement").startswith("SELECT model")

        page.fill("#statement", "DROP VIEW cells")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("a query is one SELECT").wait_for()
        watched.page.evaluate("window.report.drawAll()")
        assert page.evaluate("window.hacked") is None
        # A refused statement is an answer of its own, which browsers log.
        assert [text for text in watched.said if "422" not in text] == []
        assert watched.elsewhere(server.address) == []
