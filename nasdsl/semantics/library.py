"""The files that a text brings in: vocabularies by ``use``, sections by ``from``."""

from __future__ import annotations

from pathlib import Path

from nasdsl.diagnostics import Diagnostic, Span, printable
from nasdsl.diagnostics.catalogue import structure
from nasdsl.semantics.files import Reader, UnreadableFile, read_source
from nasdsl.semantics.vocabulary import Vocabulary, define, prelude
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import UNREADABLE
from nasdsl.syntax.parser import parse

MAX_OPEN = 64
"""Deepest nesting of files that use files."""


class Library:
    """The files that a text brings in, each read once.

    Args:
        root: the folder that paths may not leave; None for a text that does not lie in a file.
        read: reads a file.
    """

    def __init__(self, root: Path | None, problems: list[Diagnostic], read: Reader = read_source) -> None:
        self._read = read
        self.root = root.resolve() if root is not None else None
        self.problems = problems
        self._vocabularies: dict[Path, Vocabulary] = {}
        self._files: dict[Path, ast.File] = {}
        self._damaged: set[Path] = set()  # files of which syntax errors have cost something
        self._open: list[Path] = []

    def vocabulary(self, file: ast.File, folder: Path | None) -> Vocabulary:
        """The vocabulary in which a file is read: its own definitions over what it uses over the prelude."""
        below = prelude()
        for item in file.items:
            if isinstance(item, ast.Use):
                used = self.open(item.path, item.span, folder)
                if used is None:
                    below = Vocabulary(below, partly=True)
                else:
                    path, tree = used
                    if path not in self._vocabularies:
                        self._open.append(path)
                        self._vocabularies[path] = self.vocabulary(tree, path.parent)
                        self._open.pop()
                    # A layer of its own: the used file's definitions, seen through to what is below here.
                    theirs = self._vocabularies[path]
                    merged = Vocabulary(below, partly=not theirs.is_whole or path in self._damaged)
                    for level in reversed(list(theirs.levels())):
                        merged.definitions.update(level.definitions)
                        merged.choices.update(level.choices)
                    below = merged
        return define(file, Vocabulary(below), self.problems)

    def enter(self, path: Path) -> None:
        """Mark a file as being read, so that reaching it again is a cycle."""
        self._open.append(path)

    def leave(self) -> None:
        self._open.pop()

    def open(self, path: str, span: Span, folder: Path | None) -> tuple[Path, ast.File] | None:
        """The tree of a file named in a text; None, with a diagnostic, where it cannot be had."""
        if path == UNREADABLE:
            return None
        if folder is None or self.root is None:
            self.problems.append(structure.no_folder(span, path))
            return None
        try:
            target = (folder / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte in it, a name too long, a circle of links
            self.problems.append(structure.not_found(span, f"{printable(path)}: {getattr(error, 'strerror', None) or error}"))
            return None
        if not target.is_relative_to(self.root):
            self.problems.append(structure.outside(span, path, self.root.name))
            return None
        if target in self._open:
            chain = " -> ".join(p.name for p in [*self._open[self._open.index(target) :], target])
            self.problems.append(structure.cycle(span, target.name, chain))
            return None
        if len(self._open) > MAX_OPEN:
            self.problems.append(structure.files_too_deep(span, MAX_OPEN))
            return None
        if target not in self._files:
            try:
                source = self._read(target, name=str(Path(span.source.name).parent / path))
            except UnreadableFile as error:
                self.problems.append(structure.not_found(span, str(error)))
                return None
            parsed = parse(source)
            self.problems.extend(parsed.problems)
            self._files[target] = parsed.file
            if parsed.lost is not None:
                self._damaged.add(target)
        return target, self._files[target]
