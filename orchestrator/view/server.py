"""The server behind `robustsweep view`: this machine only, one page, and nothing that it could change.

Whoever asks must know the token in the page's address, and call this server by its own name: a page from
elsewhere that gets its name to point here (DNS rebinding) asks for that name, and is refused. Answers may
not be framed, cached or read by other origins.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from orchestrator.errors import UserError
from orchestrator.report.page import page, policy
from orchestrator.view import watch
from orchestrator.view.watch import Watched
from workers.recorded import as_json
from workers.storage import redacted
from workers.version import VERSION

HOST = "127.0.0.1"
LONGEST_STATEMENT = 65_536  # bytes
_NAMES = (HOST, "localhost")
_PATIENCE = 30.0  # seconds that a connection may say nothing
_EXAMPLE = "SELECT model, defence, attack, norm, epsilon, robust_accuracy, status\nFROM cells ORDER BY ALL"


class Server(ThreadingHTTPServer):
    """One page of some watched folders; `address` is where a browser finds it."""

    daemon_threads = True  # nothing that is asked is worth waiting for at the end
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, watched: Watched, port: int = 0) -> None:
        self.watched = watched
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"--port: cannot listen on port {port}: {reason}; another one, or 0 for any that is free, is "
                "allowed"
            ) from None
        except OverflowError:
            raise UserError(f"--port: found {port}; 0 to 65535 is allowed") from None
        self.port = int(self.server_address[1])
        self.address = f"http://{HOST}:{self.port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is none, and nobody reads this terminal for anything else."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = f"robustsweep/{VERSION}"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def do_GET(self) -> None:
        asked = self._asked()
        if asked == "":
            watched = self.server.watched
            where = {"example": _EXAMPLE, "version": watched.version, "seconds": watch.LOOK_SECONDS}
            text = page(watched.content, list(watched.stores), live=where)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())
        elif asked == "status":
            self._json(HTTPStatus.OK, self.server.watched.status())
        elif asked == "content":
            version = self.server.watched.version
            self._json(HTTPStatus.OK, {"version": version, **self.server.watched.content._asdict()})
        elif asked is not None:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        asked = self._asked()
        if asked is None:
            return
        if asked != "query":
            self._refuse(HTTPStatus.NOT_FOUND)
        elif self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)  # which no form of another page can send
        elif (statement := self._statement()) is not None:
            with self.server.watched.asking:
                try:
                    self._json(HTTPStatus.OK, self.server.watched.ask(statement))
                except UserError as error:
                    self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": redacted(str(error))})

    def _asked(self) -> str | None:
        """What is asked for, behind the token; None for what is refused, which has been answered then."""
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        own = {f"{name}:{self.server.port}" for name in _NAMES}
        if host not in own or (origin is not None and origin not in {f"http://{name}" for name in own}):
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        _, token, *rest = self.path.partition("?")[0].split("/")
        if len(rest) != 1 or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return rest[0]

    def _statement(self) -> str | None:
        """The SQL of a request; None for what is refused, which has been answered then."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > LONGEST_STATEMENT:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            try:
                found = as_json(self.rfile.read(int(length)))
            except ValueError:
                found = None
            if isinstance(found, dict) and isinstance(found.get("sql"), str):
                return str(found["sql"])
            self._refuse(HTTPStatus.BAD_REQUEST)
        return None

    def _json(self, status: HTTPStatus, value: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value, allow_nan=False).encode())

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # whatever else was sent is not read
        self._send(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **({"Connection": "close"} if self.close_connection else {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: addresses have the token in them."""
