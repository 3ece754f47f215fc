"""An editor without a window: a real server behind a pipe, driven through pygls' client."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient
from pygls.uris import from_fs_path

T = TypeVar("T")

TIMEOUT = 60
REQUEST_FAILED = -32803
CURSOR = "‸"
"""Marks a place in the texts of tests."""


class Editor:
    """One editor with one server.

    Attributes:
        diagnostics: of each address the last that were sent, with the version of the text.
        messages: what the server has shown.
        settings: what it is told when it asks for them.
    """

    def __init__(self, encodings: Sequence[str] = (), folders: Sequence[Path] = (), **settings: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.settings: dict[str, str] = settings
        self.diagnostics: dict[str, types.PublishDiagnosticsParams] = {}
        self.messages: list[str] = []
        self._client = LanguageClient("tests", "1")
        self._arrived = asyncio.Event()
        self._versions: dict[str, int] = {}
        self._asked = 0
        self._folders = list(folders)
        self._hear()
        self._await(self._client.start_io(sys.executable, "-m", "nasdsl", "lsp", limit=1 << 26))
        self._server: Any = self._client._server
        self._log = self.loop.create_task(self._server.stderr.read())
        self.capabilities = self._await(self._client.initialize_async(self._params(encodings, folders))).capabilities
        self._client.initialized(types.InitializedParams())
        self.until(lambda: self._asked or None)  # for its settings, which is the last thing that a server does at the start

    def _hear(self) -> None:
        client = self._client

        @client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def received(params: types.PublishDiagnosticsParams) -> None:
            self.diagnostics[params.uri] = params
            self._arrived.set()

        @client.feature(types.WINDOW_SHOW_MESSAGE)
        def shown(params: types.ShowMessageParams) -> None:
            self.messages.append(params.message)
            self._arrived.set()

        @client.feature(types.WORKSPACE_CONFIGURATION)
        def configured(params: types.ConfigurationParams) -> list[Any]:
            self._asked += 1
            self._arrived.set()
            return [self.settings for _ in params.items]

        @client.feature(types.CLIENT_REGISTER_CAPABILITY)
        def registered(params: types.RegistrationParams) -> None:
            return None

    @staticmethod
    def _params(encodings: Sequence[str], folders: Sequence[Path]) -> types.InitializeParams:
        return types.InitializeParams(
            capabilities=types.ClientCapabilities(
                general=types.GeneralClientCapabilities(position_encodings=list(encodings) or None),
                workspace=types.WorkspaceClientCapabilities(
                    configuration=True,
                    did_change_configuration=types.DidChangeConfigurationClientCapabilities(dynamic_registration=True),
                    did_change_watched_files=types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=True),
                    workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True),
                ),
                text_document=types.TextDocumentClientCapabilities(
                    completion=types.CompletionClientCapabilities(
                        completion_item=types.ClientCompletionItemOptions(snippet_support=True)
                    )
                ),
            ),
            workspace_folders=_folders_of(folders),
        )

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT))

    def close(self) -> int | None:
        """Say goodbye. Returns the server's exit code; `log` is what it has written on standard error."""
        self._await(self._client.shutdown_async(None))
        self._client.exit(None)
        self._await(self._client.stop())
        self.log = self._await(_of(self._log)).decode()
        self.loop.close()
        return int(self._server.returncode)

    # --------------------------------------------------------------------------------------------------- texts

    def open(self, text: str, uri: str = "file:///nowhere/t.nas") -> list[types.Diagnostic]:
        """Open a text, and wait for its diagnostics."""
        self._versions[uri] = 1
        self.diagnostics.pop(uri, None)
        item = types.TextDocumentItem(uri, "nas", 1, text)
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return self.wait(uri)

    def open_file(self, path: Path) -> str:
        """Open a file; gives its address."""
        uri = from_fs_path(str(path)) or ""
        self.open(path.read_bytes().decode("utf-8-sig"), uri)
        return uri

    def change(self, text: str, uri: str = "file:///nowhere/t.nas", *, wait: bool = True) -> list[types.Diagnostic]:
        self._versions[uri] += 1
        identifier = types.VersionedTextDocumentIdentifier(self._versions[uri], uri)
        change = types.TextDocumentContentChangeWholeDocument(text)
        self._client.text_document_did_change(types.DidChangeTextDocumentParams(identifier, [change]))
        return self.wait(uri) if wait else []

    def close_text(self, uri: str) -> None:
        self._client.text_document_did_close(types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(uri)))

    def wait(self, uri: str) -> list[types.Diagnostic]:
        """The diagnostics of the present version."""
        return self.until(lambda: self._present(uri))

    def _present(self, uri: str) -> list[types.Diagnostic] | None:
        found = self.diagnostics.get(uri)
        return list(found.diagnostics) if found is not None and found.version == self._versions[uri] else None

    def until(self, happened: Any) -> Any:
        """Wait until a function gives something that is not None."""

        async def waiting() -> Any:
            while (found := happened()) is None:
                self._arrived.clear()
                await self._arrived.wait()
            return found

        return self._await(waiting())

    def work_in(self, *folders: Path) -> None:
        """Take these folders for those of the workspace."""
        event = types.WorkspaceFoldersChangeEvent(_folders_of(folders), _folders_of(self._folders))
        self._client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(event))
        self._folders = list(folders)

    def configure(self, **settings: str) -> None:
        """Change settings, and wait until the server has asked for them."""
        self.settings, asked = settings, self._asked
        self._client.workspace_did_change_configuration(types.DidChangeConfigurationParams(None))
        self.until(lambda: True if self._asked > asked else None)

    # ------------------------------------------------------------------------------------------------ requests

    def request(self, method: str, params: Any) -> Any:
        async def asked() -> Any:
            return await self._client.protocol.send_request_async(method, params)

        return self._await(asked())

    def try_request(self, method: str, params: Any) -> Any:
        """Send a request that may be refused; the refusal's message in that case."""
        try:
            return self.request(method, params)
        except JsonRpcException as error:
            if error.code != REQUEST_FAILED:
                raise
            return error.message

    def at(self, marked: str, uri: str = "file:///nowhere/t.nas") -> types.TextDocumentPositionParams:
        """Open a text with a mark in it; gives the place of the mark."""
        text = marked.replace(CURSOR, "")
        self.open(text, uri)
        return types.TextDocumentPositionParams(types.TextDocumentIdentifier(uri), position(text, marked.index(CURSOR)))

    def ask(self, method: str, marked: str, uri: str = "file:///nowhere/t.nas", **more: Any) -> Any:
        """Send a request about the marked place of a text."""
        place = self.at(marked, uri)
        made = _PARAMS[method](text_document=place.text_document, position=place.position, **more)
        return self.request(method, made)

    def about(self, method: str, text: str, uri: str = "file:///nowhere/t.nas", **more: Any) -> Any:
        """Send a request about a whole text."""
        self.open(text, uri)
        return self.request(method, _PARAMS[method](text_document=types.TextDocumentIdentifier(uri), **more))

    def refusal(self, method: str, marked: str, **more: Any) -> str:
        """The message with which a request is refused."""
        try:
            found = self.ask(method, marked, **more)
        except JsonRpcException as error:
            return str(error.message)
        raise AssertionError(f"it was answered: {found}")


def _folders_of(folders: Sequence[Path]) -> list[types.WorkspaceFolder]:
    return [types.WorkspaceFolder(from_fs_path(str(f)) or "", f.name) for f in folders]


async def _of(task: asyncio.Task[bytes]) -> bytes:
    return await task


_PARAMS: dict[str, Any] = {
    types.TEXT_DOCUMENT_HOVER: types.HoverParams,
    types.TEXT_DOCUMENT_COMPLETION: types.CompletionParams,
    types.TEXT_DOCUMENT_DEFINITION: types.DefinitionParams,
    types.TEXT_DOCUMENT_REFERENCES: types.ReferenceParams,
    types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT: types.DocumentHighlightParams,
    types.TEXT_DOCUMENT_RENAME: types.RenameParams,
    types.TEXT_DOCUMENT_PREPARE_RENAME: types.PrepareRenameParams,
    types.TEXT_DOCUMENT_DOCUMENT_SYMBOL: types.DocumentSymbolParams,
    types.TEXT_DOCUMENT_FOLDING_RANGE: types.FoldingRangeParams,
    types.TEXT_DOCUMENT_FORMATTING: types.DocumentFormattingParams,
    types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL: types.SemanticTokensParams,
    types.TEXT_DOCUMENT_INLAY_HINT: types.InlayHintParams,
    types.TEXT_DOCUMENT_CODE_LENS: types.CodeLensParams,
    types.TEXT_DOCUMENT_CODE_ACTION: types.CodeActionParams,
}

_UNITS = {"utf-16": ("utf-16-le", 2), "utf-8": ("utf-8", 1), "utf-32": ("utf-32-le", 4)}
_LINE_END = re.compile(r"\r\n|\r|\n")


def position(text: str, offset: int, encoding: str = "utf-16") -> types.Position:
    """The position of a character, computed apart from the server: by encoding the line in front of it."""
    before = _LINE_END.split(text[:offset])
    codec, size = _UNITS[encoding]
    return types.Position(len(before) - 1, len(before[-1].encode(codec, "surrogatepass")) // size)


def offset(text: str, place: types.Position, encoding: str = "utf-16") -> int:
    """The character at a position, likewise."""
    starts = [0, *(found.end() for found in _LINE_END.finditer(text))]
    at = starts[place.line]
    codec, size = _UNITS[encoding]
    left = place.character
    while left > 0:
        left -= len(text[at].encode(codec, "surrogatepass")) // size
        at += 1
    assert left == 0, "a position within a character"
    return at


def cut(text: str, place: types.Range) -> str:
    """The text in a range."""
    return text[offset(text, place.start) : offset(text, place.end)]


def edited(text: str, edits: Sequence[Any]) -> str:
    """A text with edits made in it."""
    for edit in sorted(edits, key=lambda e: (e.range.start.line, e.range.start.character), reverse=True):
        text = text[: offset(text, edit.range.start)] + edit.new_text + text[offset(text, edit.range.end) :]
    return text


@contextmanager
def editor(**options: Any) -> Iterator[Editor]:
    """A server of its own."""
    made = Editor(**options)
    try:
        yield made
    finally:
        code = made.close()
    assert code == 0, made.log
    assert not made.log, made.log
