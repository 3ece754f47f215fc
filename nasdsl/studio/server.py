"""The server behind the page, on the loopback interface: the page's files, and its questions as JSON.

Whoever asks needs the token, which is the first part of every path; it is known to whoever can read the console. Beside that, a
browser on the same machine that shows a page of somebody else must not get through, whatever that page tries:

- the Host header has to be the loopback address, so that no foreign name that was pointed here later is served (DNS rebinding);
- an Origin header has to be our own, and questions are `application/json`, which no form of a foreign page can send;
- the page may load and ask nothing from elsewhere (Content-Security-Policy), nor be shown in a frame of another page.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files as package_files
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from nasdsl.diagnostics import printable
from nasdsl.studio.messages import Place, answer
from nasdsl.studio.settings import BadRequest
from nasdsl.studio.text_file import Files

ADDRESS: Final = "127.0.0.1"

MAX_BODY: Final = 2_000_000
"""Bytes of the largest request: a text of `MAX_TEXT` characters fits in any encoding that JSON has for it."""

TIMEOUT: Final = 60.0
"""Seconds after which a connection that says nothing is closed."""

PAGE_FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "graphviz.js": ("graphviz.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "licences.txt": ("licences.txt", "text/plain; charset=utf-8"),
}
"""What is served beside the questions, by path, and nothing else."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class StudioServer(ThreadingHTTPServer):
    """The server of one folder.

    Args:
        files: of the folder.
        first: the file that the page opens; None: an untitled text.
        text: what an untitled text begins with.
        port: 0 takes one that is free.

    Attributes:
        token: what paths begin with.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, files: Files, first: str | None = None, text: str = "", port: int = 0) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.files = files
        self.first = first
        self.first_text = text
        self.place = Place(files.root)
        self.token = secrets.token_urlsafe(24)
        self.port = int(self.server_address[1])
        self.hosts = {f"{name}:{self.port}" for name in (ADDRESS, "localhost")}

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke, as browsers break them, is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def ask(self, request: Any) -> dict[str, Any]:
        """Answer a question of the page: one about the file, or one of `nasdsl.studio.messages`.

        ======= ====================== ==============================================================
        kind    needs                  answer
        ======= ====================== ==============================================================
        session                        ``name`` of the file that is opened first, or None; ``text``; ``folder``
        open    name                   see `Files.open`
        changes name, version          see `Files.changes`
        save    name, text, version    see `Files.save`
        ======= ====================== ==============================================================
        """
        if not isinstance(request, dict):
            return answer(request, self.place)
        kind = request.get("kind")
        try:
            match kind:
                case "session":
                    return {"name": self.first, "text": self.first_text, "folder": self.files.root.name}
                case "open":
                    return self.files.open(_text(request, "name"))
                case "changes":
                    return self.files.changes(_text(request, "name"), _text(request, "version"))
                case "save":
                    return self.files.save(_text(request, "name"), _text(request, "text"), _text(request, "version"))
        except BadRequest as error:
            return {"error": str(error)}
        return answer(request, self.place)


def _text(request: dict[str, Any], name: str) -> str:
    found = request.get(name)
    if not isinstance(found, str):
        raise BadRequest(f"expected a `{name}`")
    return found


class _Handler(BaseHTTPRequestHandler):
    server: StudioServer
    protocol_version = "HTTP/1.1"
    timeout: ClassVar[float] = TIMEOUT
    server_version = "nasdsl"
    sys_version = ""

    def do_GET(self) -> None:
        path = self._admitted()
        if path is None:
            return
        found = PAGE_FILES.get(path)
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such file")
            return
        name, kind = found
        self._send(HTTPStatus.OK, (package_files("nasdsl.studio") / "page" / name).read_bytes(), kind)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = self._admitted()
        if path is None:
            return
        if path != "ask":
            self._refuse(HTTPStatus.NOT_FOUND, "questions go to `ask`")
            return
        if self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
            return
        body = self._body()
        if body is None:
            return
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "expected JSON")
            return
        try:
            result = self.server.ask(request)
        except Exception as error:  # a bug: the page says so and goes on, the console shows where
            traceback.print_exc()
            what = printable(f"{type(error).__name__}: {error}")
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"internal error: {what}; please report it"})
            return
        self._json(HTTPStatus.OK, result)

    # ------------------------------------------------------------------------------------------------ who may ask

    def _admitted(self) -> str | None:
        """The path behind the token; None, and the answer is given, for one who is not let in."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "this address is served under its own name only")
            return None
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).scheme + "://" + urlsplit(origin).netloc != self._own_origin():
            self._refuse(HTTPStatus.FORBIDDEN, "pages of other origins are not answered")
            return None
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            self._refuse(HTTPStatus.FORBIDDEN, "pages of other origins are not answered")
            return None
        given, slash, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(given.encode(errors="replace"), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that `nasdsl studio` has printed")
            return None
        return path

    def _own_origin(self) -> str:
        return f"http://{self.headers.get('Host', '').lower()}"

    def _body(self) -> bytes | None:
        """The body of a request; None, and the answer is given, for one that has no length or is too long."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit() and len(length) < 16):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
            return None
        if int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY:,} bytes are read")
            return None
        return self.rfile.read(int(length))

    # --------------------------------------------------------------------------------------------------- answers

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # its body is not read
        self._send(status, f"{why}\n".encode(), "text/plain; charset=utf-8")

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not printed: their paths hold the token."""
