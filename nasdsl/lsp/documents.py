"""The texts that an editor has open, each with what the compiler says of its present version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lsprotocol.types import OptionalVersionedTextDocumentIdentifier, TextDocumentEdit, TextEdit, WorkspaceEdit
from pygls.uris import from_fs_path, to_fs_path

from nasdsl.diagnostics import Source, Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.positions import Lines
from nasdsl.lsp.settings import Settings
from nasdsl.semantics.files import read_source
from nasdsl.semantics.kept import KeptText


class Document:
    """A text that is open.

    Attributes:
        version: of the text, as the editor counts.
        path: its file; None for one that is not saved yet.
    """

    def __init__(self, uri: str, text: str, version: int | None, documents: Documents) -> None:
        self.uri = uri
        self.text = text
        self.version = version
        self.path = path_of_uri(uri)
        self._documents = documents
        self._analysis: Analysis | None = None
        self._kept = KeptText()

    @property
    def analysis(self) -> Analysis:
        """What the compiler says of this version; computed once."""
        if self._analysis is None:
            documents = self._documents
            name = uri_name(self.uri) if self.path is None else str(self.path)
            self._analysis = Analysis(
                self.text, name, self.path, documents.read, documents.settings, documents.encoding, self._kept
            )
        return self._analysis

    def change(self, text: str, version: int | None) -> None:
        self.text, self.version = text, version
        self.forget()

    def forget(self) -> None:
        """Forget what was computed: the text, a file that it uses, or a setting has changed."""
        self._analysis = None

    def reads(self, path: Path) -> bool:
        """Whether the present version was checked with this file."""
        return self._analysis is not None and path.resolve() in {p.resolve() for p in self._analysis.files}


class Documents:
    """All texts that are open.

    Attributes:
        settings: what figures are computed for.
        encoding: of the client's positions.
        folders: the workspace's folders.
        has_snippets: whether the client takes completions that say where the cursor goes.
        has_versioned_edits: whether the client takes edits of a version of a document.
    """

    def __init__(self) -> None:
        self.settings = Settings()
        self.encoding = "utf-16"
        self.folders: list[Path] = []
        self.has_versioned_edits = True
        self.has_snippets = False
        self._open: dict[str, Document] = {}

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._open.values()))

    def get(self, uri: str) -> Document | None:
        return self._open.get(uri)

    def open(self, uri: str, text: str, version: int | None) -> Document:
        document = self._open[uri] = Document(uri, text, version, self)
        return document

    def close(self, uri: str) -> None:
        self._open.pop(uri, None)

    def at(self, path: Path) -> Document | None:
        """The document of a file, if it is open."""
        return next((d for d in self._open.values() if d.path is not None and d.path.resolve() == path.resolve()), None)

    def read(self, path: str | Path, *, name: str | None = None) -> Source:
        """The text of a file: that of the editor if it is open there, else that on the disk."""
        document = self.at(Path(path))
        if document is not None:
            return Source(name or str(path), document.text)
        return read_source(path, name=name)

    def readers_of(self, path: Path) -> list[Document]:
        """Documents that were checked with a file."""
        return [document for document in self._open.values() if document.reads(path)]

    def forget_all(self) -> None:
        for document in self._open.values():
            document.forget()

    def edit(self, edits: Mapping[str, Sequence[TextEdit]]) -> WorkspaceEdit:
        """Edits of files, by address: of the versions that are open, as far as the client can say so."""
        if not self.has_versioned_edits:
            return WorkspaceEdit(changes=edits)
        changes = []
        for uri, found in edits.items():
            document = self.get(uri)
            identifier = OptionalVersionedTextDocumentIdentifier(uri, None if document is None else document.version)
            changes.append(TextDocumentEdit(identifier, list(found)))
        return WorkspaceEdit(document_changes=changes)

    def place(self, analysis: Analysis, span: Span, uri: str) -> tuple[str, Lines] | None:
        """Address and lines of the file that a span lies in; None where it has none.

        Args:
            analysis: whose names or findings the span is of.
            uri: of the analysed text.
        """
        if span.source is analysis.source:
            return uri, analysis.lines
        path = analysis.path_of(span.source)
        if path is None:
            return None
        document = self.at(path)
        address = document.uri if document is not None else from_fs_path(str(path))
        return None if address is None else (address, Lines(span.source.text, self.encoding))


def path_of_uri(uri: str) -> Path | None:
    """The file of an address; None for ``untitled:…`` and the like."""
    if not uri.startswith("file:"):
        return None
    path = to_fs_path(uri)
    return None if not path else Path(path)


def uri_name(uri: str) -> str:
    """What messages call a text that lies in no file."""
    return uri.rpartition("/")[2] or uri
