"""What the compiler says of one version of a text."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from nasdsl import resources
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.lsp.figures import Figures
from nasdsl.lsp.positions import Lines
from nasdsl.lsp.settings import Settings
from nasdsl.semantics.check import Checked
from nasdsl.semantics.files import Reader
from nasdsl.semantics.kept import KeptText
from nasdsl.semantics.resolved_names import NameTable, Occurrence
from nasdsl.semantics.vocabulary import prelude
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import Tok, scan

log = logging.getLogger(__name__)

MARK = "\ufeff"
"""A byte-order mark, which files may begin with and which is no part of their text."""


class Analysis:
    """A checked text, and what follows from it when a feature asks.

    Args:
        text: the whole text.
        name: what messages call it: its path.
        path: where it lies; None for a text in no file.
        read: reads the files that it brings in.
        settings: what figures are for.
        encoding: of the client's positions.
        kept: what is kept of earlier versions of the text, whose analyses are of no use any more; None: nothing.

    Attributes:
        source: the text; a byte-order mark is a space.
        names: what each name refers to, also in the files that it brings in.
        checked: the result of the checker.
        files: the files that were looked for, with the text of those that could be read.
    """

    def __init__(
        self, text: str, name: str, path: Path | None, read: Reader, settings: Settings, encoding: str,
        kept: KeptText | None = None,
    ) -> None:  # fmt: skip
        self.source = Source(name, " " + text[1:] if text.startswith(MARK) else text)
        self.path = path
        self.encoding = encoding
        self.settings = settings
        self.names = NameTable()
        self.files: dict[Path, Source | None] = {}
        self._kept = kept
        self.checked = self._check(read)

    def _check(self, read: Reader) -> Checked:
        def recorded(path: str | Path, *, name: str | None = None) -> Source:
            self.files[Path(path)] = None
            found = self.files[Path(path)] = read(path, name=name)
            return found

        try:
            return check_source(self.source, path=self.path, names=self.names, read=recorded, kept=self._kept)
        except Exception:  # a bug of the compiler, or of a package that is installed beside it
            log.exception("the text could not be checked")
            if self._kept is not None:
                self._kept.forget()
            return Checked(None, [], None, ast.File(Span(self.source, 0, len(self.source.text)), ()))

    @property
    def text(self) -> str:
        return self.source.text

    @property
    def file(self) -> ast.File:
        """The tree; of a text with syntax errors what could be read of it."""
        assert self.checked.file is not None
        return self.checked.file

    @property
    def decoder(self) -> ast.Decoder | None:
        return self.file.decoder

    @property
    def problems(self) -> list[Diagnostic]:
        return self.checked.problems

    @property
    def has_syntax_errors(self) -> bool:
        return any(p.code < "NAS2" and p.span.source is self.source for p in self.problems)

    @cached_property
    def lines(self) -> Lines:
        return Lines(self.source.text, self.encoding)

    @cached_property
    def tokens(self) -> list[Tok]:
        """The tokens of the text, those of illegal characters left out."""
        kept = None if self._kept is None else self._kept.syntax.tokens(self.source)
        return list(scan(self.source, [])) if kept is None else kept

    @cached_property
    def figures(self) -> Figures:
        """Shapes and costs."""
        return Figures(self.checked, self.settings)

    def name_at(self, offset: int) -> Occurrence | None:
        """The name that covers a place, or ends there."""
        return self.names.at(self.source, offset)

    def path_of(self, source: Source) -> Path | None:
        """The file of a source that this text brings in; None for a text in no file."""
        if source is self.source:
            return self.path
        if source is prelude_source():
            return resources.folder("grammars") / "prelude.nas"
        return next((path for path, read in self.files.items() if read is source), None)


def prelude_source() -> Source:
    """The text of the vocabulary."""
    return next(iter(prelude().definitions.values())).definition.span.source
