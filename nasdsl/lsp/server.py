"""The server: which feature answers which request, the open texts, and when their findings are sent."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

from nasdsl.lsp.code_lens import code_lenses
from nasdsl.lsp.completion import TRIGGERS, completion
from nasdsl.lsp.diagnostics import KINDS, code_actions, diagnostics_of
from nasdsl.lsp.documents import Document, Documents, path_of_uri
from nasdsl.lsp.folding import folding_ranges
from nasdsl.lsp.formatting import formatting
from nasdsl.lsp.hover import hover
from nasdsl.lsp.inlay_hints import inlay_hints
from nasdsl.lsp.navigation import definition, highlights, references
from nasdsl.lsp.picture import picture
from nasdsl.lsp.rename import Refused, prepare_rename, rename
from nasdsl.lsp.semantic_tokens import LEGEND, semantic_tokens
from nasdsl.lsp.settings import SECTION, read_settings
from nasdsl.lsp.symbols import document_symbols, workspace_symbols

log = logging.getLogger(__name__)

T = TypeVar("T")

FEATURES: Final[Sequence[tuple[str, Callable[[Documents, Document, Any], Any], Any]]] = (
    (types.TEXT_DOCUMENT_CODE_ACTION, code_actions, types.CodeActionOptions(KINDS)),
    (types.TEXT_DOCUMENT_CODE_LENS, code_lenses, types.CodeLensOptions()),
    (types.TEXT_DOCUMENT_COMPLETION, completion, types.CompletionOptions(TRIGGERS)),
    (types.TEXT_DOCUMENT_DEFINITION, definition, None),
    (types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT, highlights, None),
    (types.TEXT_DOCUMENT_DOCUMENT_SYMBOL, document_symbols, None),
    (types.TEXT_DOCUMENT_FOLDING_RANGE, folding_ranges, None),
    (types.TEXT_DOCUMENT_FORMATTING, formatting, None),
    (types.TEXT_DOCUMENT_HOVER, hover, None),
    (types.TEXT_DOCUMENT_INLAY_HINT, inlay_hints, types.InlayHintOptions()),
    (types.TEXT_DOCUMENT_PREPARE_RENAME, prepare_rename, None),
    (types.TEXT_DOCUMENT_REFERENCES, references, None),
    (types.TEXT_DOCUMENT_RENAME, rename, types.RenameOptions(prepare_provider=True)),
    (types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, semantic_tokens, LEGEND),
)

PICTURE: Final = "nasdsl/picture"
"""The request for the picture of a document, ``{"uri": …, "fold": true, false or null}``; see `picture.picture`."""

QUIET_SECONDS: Final = 0.003
"""Time without a further change after which a text is checked: what has been typed over meanwhile need not be."""

IDLE_SECONDS: Final = (0.25, 2.0)
"""Times without a further change after which garbage is collected, that of the last checks and all of it: the collector never
runs while somebody types. All of it takes longer than a check, because what is kept of a long text is looked through."""

MOST_UNCOLLECTED: Final = 64
"""Checks after which it is collected in any case."""

LONGEST_WAIT: Final = 0.3
"""Time after which it is checked in any case, in seconds."""

_REQUEST_FAILED: Final = -32803


class NasServer(LanguageServer):
    """The language server of `.nas` files.

    The editor sends whole texts (`Full`): positions of the protocol are only ever computed from the text at hand.
    """

    def __init__(self, version: str) -> None:
        super().__init__("nasdsl", version, types.TextDocumentSyncKind.Full)
        self.documents = Documents()
        self._changed: dict[str, None] = {}
        self._changed_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._collector: asyncio.TimerHandle | None = None
        self._uncollected = 0

    # ------------------------------------------------------------------------------------------------- findings

    def check_soon(self, uris: Sequence[str]) -> None:
        """Send the findings of texts as soon as no further change is waiting."""
        now = time.monotonic()
        if not self._changed:
            self._changed_since = now
        self._changed.update(dict.fromkeys(uris))
        if self._timer is not None:
            if now - self._changed_since > LONGEST_WAIT:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._send_findings)

    def _send_findings(self) -> None:
        self._timer = None
        uris, self._changed = list(self._changed), {}
        for uri in uris:
            document = self.documents.get(uri)
            if document is None:
                continue
            try:
                found = diagnostics_of(self.documents, document)
            except Exception:
                log.exception("findings of %s", uri)
                found = []
            params = types.PublishDiagnosticsParams(uri, found, document.version)
            self.text_document_publish_diagnostics(params)
        self._collect_soon()

    def _collect_soon(self) -> None:
        """Collect garbage as soon as nobody types."""
        if gc.isenabled():  # this is no process of its own
            return
        self._uncollected += 1
        if self._collector is not None:
            self._collector.cancel()
        if self._uncollected >= MOST_UNCOLLECTED:
            self._collect()
        else:
            self._collector = asyncio.get_running_loop().call_later(IDLE_SECONDS[0], self._collect_young)

    def _collect_young(self) -> None:
        """Collect the garbage of the last checks, and all of it if nobody goes on."""
        gc.collect(1)
        later = IDLE_SECONDS[1] - IDLE_SECONDS[0]
        self._collector = asyncio.get_running_loop().call_later(later, self._collect)

    def _collect(self) -> None:
        self._collector, self._uncollected = None, 0
        gc.collect()

    def forget_readers(self, path: Path | None, but: str = "") -> list[str]:
        """Forget what was computed for texts that use a file, which has changed. Returns their addresses."""
        readers = [] if path is None else [d for d in self.documents.readers_of(path) if d.uri != but]
        for document in readers:
            document.forget()
        return [document.uri for document in readers]

    # ------------------------------------------------------------------------------------------------- settings

    def use_settings(self, given: Any) -> None:
        """Take settings of the editor; wrong ones are shown, and everything is computed anew."""
        settings, problems = read_settings(given)
        for problem in problems:
            self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, problem))
        if settings == self.documents.settings:
            return
        self.documents.settings = settings
        self.documents.forget_all()
        workspace = self.client_capabilities.workspace
        if workspace is not None and workspace.inlay_hint is not None and workspace.inlay_hint.refresh_support:
            self.workspace_inlay_hint_refresh(None)
        if workspace is not None and workspace.code_lens is not None and workspace.code_lens.refresh_support:
            self.workspace_code_lens_refresh(None)

    async def ask_for_settings(self) -> None:
        """Ask the editor for its settings, if it can be asked."""
        workspace = self.client_capabilities.workspace
        if workspace is None or not workspace.configuration:
            return
        params = types.ConfigurationParams([types.ConfigurationItem(section=SECTION)])
        answer = await self.workspace_configuration_async(params)
        self.use_settings(_plain(answer[0]) if answer else None)


def _plain(given: Any) -> Any:
    """Settings as dictionaries, which pygls makes objects of."""
    if hasattr(given, "_asdict"):
        given = given._asdict()
    if isinstance(given, dict):
        return {key: _plain(value) for key, value in given.items()}
    return given


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Whether a record of pygls' log is about something else than a request that is refused with a reason."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, JsonRpcException) and error.code == _REQUEST_FAILED)


def create_server(version: str) -> NasServer:
    """A server with all features, ready to be started."""
    logging.getLogger("pygls.protocol.json_rpc").addFilter(_is_no_refusal)
    server = NasServer(version)
    for method, function, options in FEATURES:
        server.feature(method, options)(_answering(server, function))
    _hold_texts(server)
    _hold_settings(server)

    @server.feature(types.WORKSPACE_SYMBOL)
    def find_symbols(params: types.WorkspaceSymbolParams) -> list[types.WorkspaceSymbol]:
        return _or_empty(lambda: workspace_symbols(server.documents, params), [])

    @server.feature(PICTURE)
    def draw(params: Any) -> dict[str, Any]:
        given = _plain(params)
        document = server.documents.get(given.get("uri", "")) if isinstance(given, dict) else None
        if document is None:
            return {"message": "This text is not open."}
        return _or_empty(lambda: picture(document, given.get("fold")), {"message": "The picture could not be drawn."})

    return server


def _answering(server: NasServer, function: Callable[[Documents, Document, Any], Any]) -> Callable[[Any], Any]:
    """A handler that never fails: a bug is logged, and the request answered with nothing."""

    @wraps(function)
    def answer(params: Any) -> Any:
        document = server.documents.get(params.text_document.uri)
        if document is None:
            return None
        try:
            return function(server.documents, document, params)
        except Refused as refused:
            raise JsonRpcException(str(refused), _REQUEST_FAILED) from None
        except Exception:
            log.exception("%s in %s", function.__name__, document.uri)
            return None

    del answer.__wrapped__  # pygls looks at the parameters
    return answer


def _or_empty(compute: Callable[[], T], empty: T) -> T:
    try:
        return compute()
    except Exception:
        log.exception("a request failed")
        return empty


def _hold_texts(server: NasServer) -> None:
    """Keep the texts that the editor opens, changes and closes."""
    documents = server.documents

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        item = params.text_document
        document = documents.open(item.uri, item.text, item.version)
        server.check_soon([item.uri, *server.forget_readers(document.path, item.uri)])

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        uri = params.text_document.uri
        document = documents.get(uri)
        if document is not None:
            document.change(server.workspace.get_text_document(uri).source, params.text_document.version)
            server.check_soon([uri, *server.forget_readers(document.path, uri)])

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        path = path_of_uri(uri)
        readers = server.forget_readers(path, uri)
        documents.close(uri)
        server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))
        server.check_soon(readers)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        """A saved text is the one that is open."""

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def files_changed(params: types.DidChangeWatchedFilesParams) -> None:
        for change in params.changes:
            server.check_soon(server.forget_readers(path_of_uri(change.uri)))

    @server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    def folders_changed(params: types.DidChangeWorkspaceFoldersParams) -> None:
        documents.folders = _folders(server)


def _hold_settings(server: NasServer) -> None:
    """Take what the editor can do, and its settings, at the start and when they change."""
    documents = server.documents

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        documents.encoding = str(getattr(server.workspace.position_encoding, "value", server.workspace.position_encoding))
        documents.folders = _folders(server)
        capabilities = params.capabilities
        edit = None if capabilities.workspace is None else capabilities.workspace.workspace_edit
        documents.has_versioned_edits = bool(edit is not None and edit.document_changes)
        text = None if capabilities.text_document is None else capabilities.text_document.completion
        item = None if text is None else text.completion_item
        documents.has_snippets = bool(item is not None and item.snippet_support)
        server.use_settings(_plain(params.initialization_options))

    @server.feature(types.INITIALIZED)
    async def initialized(params: types.InitializedParams) -> None:
        workspace = server.client_capabilities.workspace
        registrations = []
        if workspace is not None:
            watched, configuration = workspace.did_change_watched_files, workspace.did_change_configuration
            if watched is not None and watched.dynamic_registration:
                options = types.DidChangeWatchedFilesRegistrationOptions([types.FileSystemWatcher("**/*.nas")])
                registrations.append(types.Registration("nas-files", types.WORKSPACE_DID_CHANGE_WATCHED_FILES, options))
            if configuration is not None and configuration.dynamic_registration:
                registrations.append(
                    types.Registration("nas-settings", types.WORKSPACE_DID_CHANGE_CONFIGURATION, {"section": SECTION})
                )
        if registrations:
            await server.client_register_capability_async(types.RegistrationParams(registrations))
        await server.ask_for_settings()

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configured(params: types.DidChangeConfigurationParams) -> None:
        given = _plain(params.settings)
        if given:
            server.use_settings(given)
        else:
            await server.ask_for_settings()


def _folders(server: NasServer) -> list[Path]:
    workspace = server.workspace
    folders = [path_of_uri(uri) for uri in workspace.folders]
    if not folders and workspace.root_uri:
        folders = [path_of_uri(workspace.root_uri)]
    return [folder for folder in folders if folder is not None]


def run(version: str) -> None:
    """Serve one editor over standard input and output, until it says goodbye."""
    from nasdsl.lsp.analysis import prelude_source
    from nasdsl.syntax.parser import tables

    tables()
    prelude_source()
    gc.collect()
    gc.freeze()  # what was loaded so far stays; collections look at what texts need alone
    gc.disable()  # see `IDLE_SECONDS`
    create_server(version).start_io()
