"""`nasdsl studio` over HTTP: who is answered, and who is not."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nasdsl.folder import Folder
from nasdsl.studio.server import MAX_BODY, PAGE_FILES, StudioServer
from nasdsl.studio.text_file import MISSING, Files

ROOT = Path(__file__).parents[2]
TEXT = "decoder d { input c3 fpn(width=32) { output p3 = conv_3x3(c3) } head(width=32) { conv_3x3 } predict fcos }\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StudioServer]:
    (tmp_path / "secret.nas").write_text("op stolen(x) = x\n")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a.nas").write_text(TEXT)
    made = StudioServer(Files(Folder.open(tmp_path / "inside", is_writable=True)), "a.nas")
    with made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


class Got:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.data = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


def send(server: StudioServer, method: str, path: str, body: bytes | None = None, **headers: str) -> Got:
    """Send a request; `path` begins behind the token. Names of headers have ``_`` for ``-``."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    full = path if path.startswith("/") else f"/{server.token}/{path}"
    connection.request(method, full, body, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        return Got(connection.getresponse())
    finally:
        connection.close()


def ask(server: StudioServer, request: Any, **headers: str) -> Got:
    return send(server, "POST", "ask", json.dumps(request).encode(), **{"Content_Type": "application/json", **headers})


def test_the_page_and_its_files(server: StudioServer) -> None:
    for path, (_, kind) in PAGE_FILES.items():
        got = send(server, "GET", path)
        assert (got.status, got.headers["Content-Type"]) == (200, kind)
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["Referrer-Policy"] == "no-referrer"
        policy = got.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert send(server, "HEAD", path).data == b""
    assert b'data-compiler="server"' in send(server, "GET", "").data


def test_questions(server: StudioServer) -> None:
    assert ask(server, {"kind": "session"}).json == {"name": "a.nas", "text": "", "folder": "inside"}
    opened = ask(server, {"kind": "open", "name": "a.nas"}).json
    assert opened["text"] == TEXT
    assert ask(server, {"kind": "check", "text": opened["text"], "name": "a.nas"}).json["kind"] == "decoder"
    saved = ask(server, {"kind": "save", "name": "a.nas", "text": "# ø\n", "version": opened["version"]}).json
    assert saved["saved"]
    assert (server.files.root / "a.nas").read_text(encoding="utf-8") == "# ø\n"
    assert ask(server, {"kind": "changes", "name": "a.nas", "version": saved["version"]}).json == {"changed": False}


def test_one_connection_serves_many_questions(server: StudioServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _ in range(3):
        connection.request("POST", f"/{server.token}/ask", b'{"kind": "session"}', {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["name"] == "a.nas"
    connection.close()


@pytest.mark.parametrize(
    "path", ["/", "/ask", "/page.js", "/{half}/", "/{token}", "/{token}x/", "//", "/%00/", "/..", "/{wide}/"]
)
def test_without_the_token_nothing_is_served(path: str, server: StudioServer) -> None:
    names = {"{token}": server.token, "{half}": server.token[:-1], "{wide}": "\xe9" * 32}
    for name, value in names.items():
        path = path.replace(name, value)
    body = json.dumps({"kind": "save", "name": "a.nas", "text": "stolen", "version": MISSING}).encode()
    raw = path.encode("latin-1")
    for method in ("GET", "POST"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            head = b"Host: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
                server.port,
                len(body),
            )
            connection.sendall(method.encode() + b" " + raw + b" HTTP/1.1\r\n" + head + body)
            answered = connection.makefile("rb").read()
        assert answered.startswith(b"HTTP/1.1 403 ")
        assert server.token.encode() not in answered
    assert (server.files.root / "a.nas").read_text() == TEXT


def test_paths_of_the_page_lead_nowhere_else(server: StudioServer) -> None:
    for path in (
        "..", "../server.py", "%2e%2e/server.py", "page", "page/", "./index.html", "index.html", "page.js/..", "a.nas", "ask",
        "..%2fserver.py", ".//etc/passwd", "graphviz.js%00", "?x/../../a",
    ):  # fmt: skip
        got = send(server, "GET", path)
        assert got.status == (200 if path.startswith("?") else 404), path
        assert b"def " not in got.data
    assert send(server, "POST", "page.js", b"{}", Content_Type="application/json").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "evil.example:{port}"}, {"Host": "127.0.0.1"}, {"Host": "127.0.0.1:1"},
        {"Host": "localhost.evil.example:{port}"}, {"Host": "127.0.0.1:{port}.evil.example"}, {"Host": ""},
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": ""},
        {"Origin": "https://127.0.0.1:{port}"}, {"Origin": "http://127.0.0.1:{port}.evil.example"},
        {"Origin": "http://localhost:{port}"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)  # fmt: skip
def test_other_hosts_and_origins_are_refused(headers: dict[str, str], server: StudioServer) -> None:
    """Also with the token."""
    filled = {name: value.format(port=server.port) for name, value in headers.items()}
    got = ask(server, {"kind": "open", "name": "a.nas"}, **filled)
    assert got.status == 403
    assert TEXT.encode() not in got.data
    assert send(server, "GET", "", **filled).status == 403
    assert "Access-Control-Allow-Origin" not in got.headers


def test_own_origins_are_answered(server: StudioServer) -> None:
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.port}"
        own = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert ask(server, {"kind": "session"}, **own).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_forms_are_refused(kind: str, server: StudioServer) -> None:
    assert ask(server, {"kind": "session"}, Content_Type=kind).status == 415


def test_other_methods_are_refused(server: StudioServer) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"):
        got = send(server, method, "ask")
        assert got.status == 501
        assert "Access-Control-Allow-Origin" not in got.headers


def test_bodies_are_bounded(server: StudioServer) -> None:
    for length, status in ((str(MAX_BODY + 1), 413), ("9" * 30, 411), ("-1", 411), ("x", 411), ("1_0", 411), ("\u0663", 411)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            head = f"POST /{server.token}/ask HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + b"Content-Length: " + length.encode() + b"\r\n\r\n")
            answered = connection.makefile("rb").read()  # without the body, and the connection ends
        assert answered.startswith(f"HTTP/1.1 {status} ".encode()), (length, answered)
    assert send(server, "POST", "ask", None, Content_Type="application/json", Transfer_Encoding="chunked").status == 411
    large = ask(server, {"kind": "check", "text": "é" * 190_000})
    assert large.status == 200


def test_a_body_that_does_not_come_holds_nobody_up(server: StudioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.studio.server._Handler.timeout", 1.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
        head = f"POST /{server.token}/ask HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        slow.sendall(head.encode() + b"Content-Length: 100\r\n\r\n" + b'{"kind":')
        assert ask(server, {"kind": "session"}).status == 200
        assert b"200" not in slow.makefile("rb").read()  # and the connection ends


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nul", b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes, server: StudioServer) -> None:
    assert send(server, "POST", "ask", body, Content_Type="application/json").status == 400
    assert ask(server, {"kind": "session"}).status == 200


@pytest.mark.parametrize(
    "request_",
    [
        [], 3, None, {}, {"kind": "open"}, {"kind": "open", "name": 3}, {"kind": "open", "name": "../secret.nas"},
        {"kind": "open", "name": "/etc/passwd"}, {"kind": "changes", "name": "a.nas"}, {"kind": "save", "name": "a.nas"},
        {"kind": "save", "name": "../new.nas", "text": "x", "version": ""}, {"kind": "save", "name": "a.nas", "text": None},
        {"kind": "check", "text": TEXT, "name": "../secret.nas"}, {"kind": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_questions_without_a_meaning(request_: Any, server: StudioServer) -> None:
    got = ask(server, request_)
    assert got.status == 200
    assert "error" in got.json
    assert (server.files.root / "a.nas").read_text() == TEXT
    assert sorted(path.name for path in server.files.root.parent.iterdir()) == ["inside", "secret.nas"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_use_reads_nothing_outside(server: StudioServer) -> None:
    root = server.files.root
    (root / "link.nas").symlink_to(root.parent / "secret.nas")
    (root / "folder").symlink_to(root.parent)
    for used in ("../secret.nas", str(root.parent / "secret.nas"), "link.nas", "folder/secret.nas"):
        text = f'use "{used}"\n' + TEXT.replace("conv_3x3(c3)", "stolen(c3)")
        found = ask(server, {"kind": "check", "text": text, "name": "a.nas"}).json
        assert found["diagnostics"][0]["code"] == "NAS413", used
        assert "op stolen" not in json.dumps(found)
    (root / "own.nas").write_text("op stolen(x) = x\n")
    text = 'use "own.nas"\n' + TEXT.replace("conv_3x3(c3)", "stolen(c3)")
    assert ask(server, {"kind": "check", "text": text, "name": "a.nas"}).json["errors"] == 0
    assert ask(server, {"kind": "check", "text": text}).json["errors"] == 0  # a text that is not saved yet


def test_a_bug_is_told_and_the_server_goes_on(
    server: StudioServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nasdsl.studio.server.answer", lambda *_: 1 / 0)
    got = ask(server, {"kind": "check", "text": TEXT})
    assert (got.status, got.json["error"]) == (500, "internal error: ZeroDivisionError: division by zero; please report it")
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert ask(server, {"kind": "session"}).status == 200


def test_connections_that_break_are_not_reported_and_bugs_are(server: StudioServer, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ConnectionResetError(), BrokenPipeError(), TimeoutError(), ZeroDivisionError()):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
        assert (type(error).__name__ in capsys.readouterr().err) == isinstance(error, ZeroDivisionError)


def test_tokens_differ(tmp_path: Path) -> None:
    made = [StudioServer(Files(Folder.open(tmp_path))) for _ in range(2)]
    assert made[0].token != made[1].token
    assert all(len(server.token) >= 32 for server in made)
    for server in made:
        server.server_close()


# ------------------------------------------------------------------------------------------------------- the command


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nasdsl", "studio", "--no-browser", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the shell may ignore it
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_the_command_says_its_address_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "a.nas").write_text(TEXT)
    process = start(tmp_path, "a.nas")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    host, _, rest = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", f"/{rest}")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    connection.close()
    assert process.returncode == 0
    assert out == ""
    assert err == f"a.nas in {tmp_path.resolve()}\nCtrl-C ends it.\n\nended\n"


def test_a_browser_is_opened_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import webbrowser

    from click.testing import CliRunner

    from nasdsl.cli import cli

    opened: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", opened.append)

    def served(self: StudioServer, *_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StudioServer, "serve_forever", served)
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # at once
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert CliRunner().invoke(cli, ["studio"]).exit_code == 0
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert CliRunner().invoke(cli, ["studio", "--no-browser"]).exit_code == 0
    assert opened == []
    result = CliRunner().invoke(cli, ["studio"])
    assert opened == [result.stdout.strip()]
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setenv("BROWSER", "firefox")  # as someone who has no display says which program shows pages
    result = CliRunner().invoke(cli, ["studio"])
    assert opened[1:] == [result.stdout.strip()]
    monkeypatch.delenv("BROWSER")
    monkeypatch.setattr(sys, "platform", "darwin")
    result = CliRunner().invoke(cli, ["studio"])
    assert opened[2:] == [result.stdout.strip()]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from nasdsl.cli import cli

    (tmp_path / "wrong.nas").write_bytes(b"\xff\xfe")
    for name, says in (
        (str(tmp_path), "is a folder"), (str(tmp_path / "a.txt"), "ends in .nas"),
        (str(tmp_path / "no" / "a.nas"), "no folder"),
        (str(tmp_path / "wrong.nas"), "not UTF-8"), ("zoo:nothing", "the zoo has no 'nothing'"),
    ):  # fmt: skip
        result = CliRunner().invoke(cli, ["studio", "--no-browser", name])
        assert result.exit_code == 2
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(cli, ["studio", "--no-browser", "--port", str(port)])
    assert result.exit_code == 2
    assert f"cannot serve on 127.0.0.1:{port}" in result.stderr
