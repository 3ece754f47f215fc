"""Editors that can do less than others, and requests that fail: the server runs in the process of the tests."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from pygls.uris import from_fs_path

from nasdsl.backends import diagrams
from nasdsl.lsp import files
from nasdsl.lsp import server as lsp_server
from nasdsl.lsp.documents import Documents
from nasdsl.lsp.picture import picture
from nasdsl.lsp.server import NasServer, create_server

URI = "file:///nowhere/t.nas"
TEXT = "op two(x) = conv_3x3(x)\nop four(x) = two(two(x))\n"


class Plain:
    """An editor that sends what it is told to, and keeps what it gets.

    Attributes:
        got: the messages of the server.
        requests: the methods of those that ask for something, which get `settings` as their answer.
    """

    def __init__(self, settings: Any = None) -> None:
        self.server: NasServer = create_server("1")
        self.got: list[dict[str, Any]] = []
        self._settings = settings
        self.server.protocol.set_writer(self)  # type: ignore[arg-type]  # what it calls is there

    @property
    def requests(self) -> list[str]:
        return [m["method"] for m in self.got if "method" in m and "id" in m]

    @property
    def findings(self) -> list[tuple[str, list[str]]]:
        return [
            (m["params"]["uri"], [d["code"] for d in m["params"]["diagnostics"]])
            for m in self.got
            if m.get("method") == "textDocument/publishDiagnostics"
        ]

    def write(self, data: bytes) -> None:
        message = json.loads(data.partition(b"\r\n\r\n")[2])
        self.got.append(message)
        if "method" in message and "id" in message:
            self._send({"id": message["id"], "result": self._settings})

    def _send(self, message: dict[str, Any]) -> None:
        protocol = self.server.protocol
        protocol.handle_message(protocol.structure_message({"jsonrpc": "2.0", **message}))

    async def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})
        await self._settle()

    async def ask(self, method: str, params: Any) -> Any:
        number = len(self.got) + 1000
        self._send({"id": number, "method": method, "params": params})
        await self._settle()
        (answer,) = (m for m in self.got if m.get("id") == number)
        assert "result" in answer, answer
        return answer["result"]

    async def begin(self, workspace: dict[str, Any] | None = None, **more: Any) -> None:
        capabilities = {} if workspace is None else {"workspace": workspace}
        await self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities, **more})
        await self.tell("initialized", {})

    async def open(self, text: str, uri: str = URI) -> None:
        document = {"uri": uri, "languageId": "nas", "version": 1, "text": text}
        await self.tell("textDocument/didOpen", {"textDocument": document})

    async def _settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def place(line: int, character: int, uri: str = URI) -> dict[str, Any]:
    return {"textDocument": {"uri": uri}, "position": {"line": line, "character": character}}


def test_an_editor_that_can_do_nothing_is_asked_for_nothing(tmp_path: Path) -> None:
    async def session() -> None:
        editor = Plain()
        await editor.begin(rootUri=from_fs_path(str(tmp_path)))
        assert editor.requests == []
        assert editor.server.documents.folders == [tmp_path]
        await editor.open(TEXT)
        made = await editor.ask("textDocument/rename", {**place(0, 4), "newName": "twice"})
        assert list(made) == ["changes"]  # an edit without versions
        assert [edit["newText"] for edit in made["changes"][URI]] == ["twice"] * 3
        items = (await editor.ask("textDocument/completion", place(1, 16)))["items"]
        assert "two" in [item["label"] for item in items]
        assert not any("$0" in item["textEdit"]["newText"] for item in items)

    run(session())


@pytest.mark.parametrize(
    ("workspace", "requests"),
    [
        ({}, []),
        ({"configuration": True}, ["workspace/configuration"]),
        ({"didChangeWatchedFiles": {"dynamicRegistration": True}}, ["client/registerCapability"]),
        ({"didChangeConfiguration": {"dynamicRegistration": True}}, ["client/registerCapability"]),
        ({"didChangeConfiguration": {"dynamicRegistration": False}}, []),
        ({"didChangeWatchedFiles": {"dynamicRegistration": False}}, []),
    ],
)
def test_an_editor_is_asked_for_what_it_can_do(workspace: dict[str, Any], requests: list[str]) -> None:
    async def session() -> None:
        editor = Plain()
        await editor.begin(workspace)
        assert editor.requests == requests

    run(session())


def test_settings_that_are_sent_are_taken_and_what_depends_on_them_is_shown_anew() -> None:
    async def session() -> None:
        editor = Plain()
        await editor.begin({"inlayHint": {"refreshSupport": True}, "codeLens": {"refreshSupport": True}})
        for _ in range(2):  # the second time nothing is new
            await editor.tell("workspace/didChangeConfiguration", {"settings": {"nasdsl": {"size": "320x320"}}})
        assert editor.server.documents.settings.size == (320, 320)
        assert editor.requests == ["workspace/inlayHint/refresh", "workspace/codeLens/refresh"]

    run(session())


def test_settings_that_are_asked_for_count_more_than_those_of_the_start() -> None:
    async def session() -> None:
        editor = Plain([{"backbone": "resnet101"}])
        await editor.begin({"configuration": True}, initializationOptions={"size": "64x96"})
        assert editor.server.documents.settings.backbone == "resnet101"

    run(session())


def test_a_request_that_fails_is_logged_and_answered_with_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    features = [(method, broken if method == "textDocument/hover" else f, o) for method, f, o in lsp_server.FEATURES]
    monkeypatch.setattr(lsp_server, "FEATURES", features)
    for name in ("workspace_symbols", "picture", "diagnostics_of"):
        monkeypatch.setattr(lsp_server, name, broken)
    monkeypatch.setattr(lsp_server, "QUIET_SECONDS", 0)

    async def session() -> None:
        editor = Plain()
        await editor.begin()
        await editor.open(TEXT)
        assert await editor.ask("textDocument/hover", place(0, 4)) is None
        assert await editor.ask("workspace/symbol", {"query": ""}) == []
        assert await editor.ask("nasdsl/picture", {"uri": URI}) == {"message": "The picture could not be drawn."}
        await asyncio.sleep(0.01)
        assert editor.findings == [(URI, [])]

    with caplog.at_level(logging.ERROR, "nasdsl.lsp.server"):
        run(session())
    said = [record.getMessage() for record in caplog.records if record.name == "nasdsl.lsp.server"]
    assert sorted(said) == ["a request failed", "a request failed", f"broken in {URI}", f"findings of {URI}"]


def test_texts_that_are_not_open_any_more_have_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsp_server, "QUIET_SECONDS", 60)

    async def session() -> None:
        editor = Plain()
        await editor.begin()
        await editor.open("op f(x) = conv_3x4(x)")
        await editor.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
        change = {"textDocument": {"uri": URI, "version": 2}, "contentChanges": [{"text": "op f(x) = conv_3x5(x)"}]}
        await editor.tell("textDocument/didChange", change)
        editor.server._send_findings()
        assert editor.findings == [(URI, [])]  # those of closing it

    run(session())


def test_a_change_of_a_text_that_is_not_open_shows_no_message() -> None:
    async def session() -> None:
        editor = Plain()
        await editor.begin()
        await editor.tell("textDocument/didChange", {"textDocument": {"uri": URI, "version": 2}, "contentChanges": []})
        assert [message.get("method") for message in editor.got if "id" not in message] == []

    run(session())


def test_somebody_who_never_pauses_gets_findings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further change puts off the check only until the first one has waited for long."""
    monkeypatch.setattr(lsp_server, "QUIET_SECONDS", 0.02)
    monkeypatch.setattr(lsp_server, "LONGEST_WAIT", 0.01)

    async def session() -> None:
        editor = Plain()
        await editor.begin()
        await editor.open("op f(x) = conv_3x4(x)")
        for number in range(2, 12):
            await asyncio.sleep(0.005)
            change = {"textDocument": {"uri": URI, "version": number}, "contentChanges": [{"text": "op f(x) = conv_3x5(x)"}]}
            await editor.tell("textDocument/didChange", change)
        assert (URI, ["NAS201"]) in editor.findings

    run(session())


def test_files_of_a_workspace_are_so_many_at_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/notes.txt", "a/one.nas", "b/two.nas", "b/three.nas"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(files, "MOST_FILES", 2)
    found = files.nas_files([tmp_path / "a", tmp_path / "b"])
    assert [path.name for path in found] == ["one.nas", "three.nas"]


def test_a_picture_that_cannot_be_drawn_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bytes:
        raise diagrams.RenderError("Graphviz is missing")

    monkeypatch.setattr(diagrams, "render_folding", failing)
    head = "head(width=8) { conv_1x1 } predict fcos"
    document = Documents().open(URI, f"decoder d {{ input c3 fpn(width=8) {{ output p3 = c3 }} {head} }}", 1)
    assert picture(document) == {"message": "Graphviz is missing"}
