"""Object stores on loopback, and a proxy before them that counts requests and has faults when it is told to.

The servers are moto's for S3 and gcp-storage-emulator's for GCS, in threads of this process; whatever speaks
their protocols over HTTP reaches them through the proxy.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pyarrow import fs

Fault = Literal["error", "slow_down", "delay", "cut", "lost"]
"""error, slow_down: 500 and 503, and nothing is done. delay: a while passes first. cut: the connection ends
in the middle of what is sent, a PUT's body or a GET's answer. lost: all is done, and the answer is lost."""

DELAY = 0.3  # seconds
BUCKET = "bucket"
_HOP = ("connection", "transfer-encoding", "expect", "host", "content-length")


@dataclass(frozen=True, slots=True)
class Request:
    """One that came to the proxy."""

    method: str  # LIST for a GET or HEAD of a bucket's names, else HTTP's
    key: str  # below the bucket; of LIST, the prefix
    fault: Fault | None
    again: int  # how many for the same came before it


def never(request: Request) -> Fault | None:
    return None


def seeded(
    seed: int, share: float, faults: Sequence[Fault], *, times: int = 3
) -> Callable[..., Fault | None]:
    """Each request has a fault with the probability `share`, the same in every run; one that is made for the
    same thing again and again has at most `times`, so that patience pays."""

    def fault(request: Request) -> Fault | None:
        text = f"{seed} {request.method} {request.key} {request.again}"
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        if request.again >= times or draw / 2**64 >= share:
            return None
        return faults[draw % len(faults)]

    return fault


@dataclass
class Proxy:
    """What stands between a client and a server of an object store."""

    port: int = 0
    scheme: str = "s3"
    fault: Callable[[Request], Fault | None] = never
    requests: list[Request] = field(default_factory=list)
    _again: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def uri(self, path: str) -> str:
        """Of a path in the bucket, as a grid or a command names it."""
        place = f"scheme=http&endpoint_override=127.0.0.1%3A{self.port}"
        if self.scheme == "gs":
            return f"gs://anonymous@{BUCKET}/{path}?{place}&retry_limit_seconds=20"
        return f"s3://{BUCKET}/{path}?{place}&region=us-east-1"

    def counts(self) -> Counter[str]:
        """How many requests of each method came."""
        return Counter(request.method for request in self.requests)

    def by_room(self) -> dict[str, Counter[str]]:
        """The same by what in an output folder or cache they were about."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for request in self.requests:
            parts = request.key.split("/")
            found[parts[1] if len(parts) > 1 else ""][request.method] += 1
        return dict(found)

    def forget(self) -> None:
        with self._lock:
            self.requests.clear()
            self._again.clear()

    def take(self, method: str, target: str) -> Request:
        """Write down a request, and what is to become of it."""
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        if self.scheme == "gs":
            key = unquote(url.path.partition(f"/b/{BUCKET}/o")[2]).lstrip("/")
            key = key or query.get("name", [""])[0]
        else:
            key = unquote(url.path).lstrip("/").partition("/")[2]
        if method == "GET" and not key:
            method, key = "LIST", query.get("prefix", [""])[0]
        with self._lock:
            again = self._again[method, key]
            self._again[method, key] += 1
        request = Request(method, key, None, again)
        request = replace(request, fault=self.fault(request))
        self.requests.append(request)
        return request


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    disable_nagle_algorithm = True
    proxy: ClassVar[Proxy]
    upstream: ClassVar[int]

    def log_message(self, format: str, *args: Any) -> None: ...

    def handle_expect_100(self) -> bool:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()  # a client waits a second for it
        return True

    def _serve(self) -> None:
        request = self.proxy.take(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if request.fault == "cut" and self.command in ("PUT", "POST"):
            self.rfile.read(length // 2)
            self._hang_up()
            return
        body = self._body(length)
        if request.fault in ("error", "slow_down"):
            self._refuse(*((500, "InternalError") if request.fault == "error" else (503, "SlowDown")))
            return
        if request.fault == "delay":
            time.sleep(DELAY)
        status, headers, answer = self._pass_on(body)
        if request.fault == "lost":
            self._hang_up()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        size = next((value for name, value in headers if name.lower() == "content-length"), len(answer))
        self.send_header("Content-Length", str(size if self.command == "HEAD" else len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[: len(answer) // 2] if request.fault == "cut" else answer)
        self.wfile.flush()
        if request.fault == "cut":
            self._hang_up()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve

    def _body(self, length: int) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(length)
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        headers |= {"Host": self.headers["Host"], "Content-Length": str(len(body))}
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours."""


@contextmanager
def proxied(upstream: int, scheme: str) -> Iterator[Proxy]:
    """A proxy before the server on a port of this machine."""
    proxy = Proxy(scheme=scheme)
    handler = type("Handler", (_Handler,), {"proxy": proxy, "upstream": upstream})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_ENVIRONMENT: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """A proxy before an S3 server with an empty bucket `BUCKET`."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            _, port = server.get_host_and_port()
            with proxied(port, "s3") as proxy:
                direct = fs.S3FileSystem(
                    endpoint_override=f"127.0.0.1:{port}",
                    scheme="http",
                    region="us-east-1",
                    allow_bucket_creation=True,
                )
                direct.create_dir(BUCKET)
                yield proxy
        finally:
            server.stop()


@contextmanager
def gcs_server(seed: int = 0, share: float = 0.0) -> Iterator[Proxy]:
    """A proxy before a server of Google's protocol with an empty bucket `BUCKET`; a `share` of what is not an
    upload fails or is slow.

    In a process of their own, since PyArrow waits for GCS with Python's lock held; so its requests are not
    to be seen.
    """
    pytest.importorskip("gcp_storage_emulator")
    code = f"from tests.support.object_store import serve_gcs; serve_gcs({seed}, {share})"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin and process.stdout
        try:
            yield Proxy(port=int(process.stdout.readline()), scheme="gs")
        finally:
            process.stdin.close()  # which ends it
            print(process.stdout.read().decode())


def serve_gcs(seed: int, share: float) -> None:
    """Say a port, serve until standard input ends, and say what faults there were."""
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    with proxied(port, "gs") as proxy:
        fault = seeded(seed, share, ("error", "slow_down", "delay"))
        # Of an upload that is broken off the emulator says that its first byte has arrived.
        proxy.fault = lambda request: None if request.method in ("PUT", "POST") else fault(request)
        print(proxy.port, flush=True)
        sys.stdin.read()
        print(Counter(request.fault for request in proxy.requests))
    server.stop()
