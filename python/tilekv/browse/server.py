"""The server of browse: who may ask, and what every answer says to the browser.

Any page of the web can have a browser ask 127.0.0.1. So what is asked must name a token, which only the printed URL has, and this
machine as the host, which a name of somebody else that is resolved to 127.0.0.1 is not. Nothing is changed by any request.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl

from tilekv.browse.pages import (
    STYLE,
    fragments_page,
    key_of,
    keys_page,
    value_page,
)
from tilekv.browse.values import picture
from tilekv.errors import InvalidValueError, KeyNotFoundError, TileKVError, WrongTypeError
from tilekv.store import Store

ADDRESS: Final = "127.0.0.1"
IDLE_S: Final = 60.0  # after which a connection that says nothing is closed
HTML: Final = "text/html; charset=utf-8"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Browser(ThreadingHTTPServer):
    """Serves one store to browsers of this machine.

    Parameters
    ----------
    db : Store
        Open for reading. It stays the caller's.
    port : int
        0: one that is free.

    Raises
    ------
    OSError
        When the port is taken.
    """

    daemon_threads = True

    def __init__(self, db: Store, port: int = 0) -> None:
        self.db = db
        self.token = secrets.token_urlsafe()
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """What a browser is to open; whoever has it can read the store."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has gone away while it was answered is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Browser
    server_version = "tilekv"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self._hosts():
            self._refuse(HTTPStatus.FORBIDDEN, "this server is asked as 127.0.0.1 or localhost")
            return
        path, _, query = self.path.partition("?")
        token, slash, page = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "the URL has not the token that browse has printed")
            return
        try:
            self._answer(
                page if slash else "no page", dict(parse_qsl(query, keep_blank_values=True))
            )
        except KeyNotFoundError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except (InvalidValueError, WrongTypeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (TileKVError, OSError, MemoryError) as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error) or type(error).__name__)

    do_HEAD = do_GET

    def _not_allowed(self) -> None:
        self.close_connection = True  # what may come behind the request is not read
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "this server only shows: GET and HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _not_allowed

    def _answer(self, page: str, asked: dict[str, str]) -> None:
        db = self.server.db
        if page == "":
            if "at" not in asked:
                db.reopen()  # a first page shows what others have written since; the next ones go on in it
            self._send(HTTPStatus.OK, HTML, keys_page(db, asked))
        elif page == "value":
            self._send(HTTPStatus.OK, HTML, value_page(db, asked))
        elif page == "fragments":
            db.reopen()
            self._send(HTTPStatus.OK, HTML, fragments_page(db))
        elif page == "style.css":
            self._send(HTTPStatus.OK, "text/css; charset=utf-8", STYLE.encode())
        elif page == "picture":
            attrs = [each for each in db.schema.attrs if each.name == asked.get("attr")]
            found = picture(db, key_of(db, asked), attrs[0]) if attrs else None
            if found is None:
                self._refuse(HTTPStatus.NOT_FOUND, "the value is no picture")
            else:
                self._send(HTTPStatus.OK, *found)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _hosts(self) -> list[str]:
        port = self.server.server_port
        # Browsers leave out the port of http.
        return [f"{name}:{port}".removesuffix(":80") for name in (ADDRESS, "localhost")]

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(status, "text/plain; charset=utf-8", why.encode(errors="replace"))

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        with suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def end_headers(self) -> None:
        """Every answer, those of the standard library to what is no HTTP too, says what a browser may do with it."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: a log of requests would have the token, and keys, in it."""
