"""The ops, blocks and choices that a text can name: its own, those it uses, and the prelude's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

from nasdsl import resources
from nasdsl.diagnostics import Diagnostic, Source, Span, printable
from nasdsl.diagnostics.catalogue import holes, structure
from nasdsl.diagnostics.catalogue import names as codes
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.expansions import MOST, Expansion, Key
from nasdsl.semantics.files import UnreadableFile, read_source
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import UNREADABLE
from nasdsl.syntax.parser import parse


@dataclass(slots=True)
class Op:
    """An op or aggregation with the vocabulary that its body is read in (lexical scope).

    Attributes:
        operands: names of the parameters that take features.
        attributes: the others, with their defaults.
        broken: its own definition has a mistake, which is reported there; calls of it say nothing more.
        weight: about how many layers one call expands into; 0 while not yet known.
        accepts: what its attributes accept, see `signature.accepted`; None while not yet known.
        expansions: what calls of it have become so far.
    """

    definition: ast.OpDef
    home: Vocabulary
    operands: tuple[str, ...]
    attributes: dict[str, ast.Attribute]
    broken: bool = False
    weight: int = 0
    accepts: Mapping[str, Accepts] | None = None
    expansions: dict[Key, Expansion] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.definition.name

    def remember(self, key: Key, expansion: Expansion | None) -> None:
        """Keep what a call has become; None, what cannot be had again, is not kept."""
        if expansion is None:
            return
        if len(self.expansions) >= MOST:
            self.expansions.clear()
        self.expansions[key] = expansion


@dataclass(slots=True)
class Block:
    """A block with the vocabulary that its body is read in."""

    definition: ast.BlockDef
    home: Vocabulary
    broken: bool = False
    weight: int = 0

    @property
    def name(self) -> str:
        return self.definition.name


Definition: TypeAlias = Op | Block


@dataclass(slots=True)
class Vocabulary:
    """Definitions by name. Those of a file shadow those of the files it uses, which shadow the prelude.

    Attributes:
        partly: a used file could not be read, or not all of it, which is reported already.
    """

    parent: Vocabulary | None = None
    definitions: dict[str, Definition] = field(default_factory=dict)
    choices: dict[str, ast.ChoiceDef] = field(default_factory=dict)
    partly: bool = False

    @property
    def whole(self) -> bool:
        """Whether all was read that belongs to it, so that what it lacks is nowhere."""
        at: Vocabulary | None = self
        while at is not None:
            if at.partly:
                return False
            at = at.parent
        return True

    def find(self, name: str) -> Definition | None:
        at: Vocabulary | None = self
        while at is not None:
            found = at.definitions.get(name)
            if found is not None:
                return found
            at = at.parent
        return None

    def find_choice(self, name: str) -> ast.ChoiceDef | None:
        at: Vocabulary | None = self
        while at is not None:
            if name in at.choices:
                return at.choices[name]
            at = at.parent
        return None

    def known(self) -> list[str]:
        return [*self.definitions, *(self.parent.known() if self.parent else ())]

    def known_choices(self) -> list[str]:
        return [*self.choices, *(self.parent.known_choices() if self.parent else ())]


@cache
def prelude() -> Vocabulary:
    """The vocabulary of ``grammars/prelude.nas``, read once a process."""
    source = Source("prelude.nas", resources.read("grammars", "prelude.nas"))
    parsed = parse(source)
    problems = list(parsed.problems)
    vocabulary = define(parsed.file, Vocabulary(), problems)
    assert not problems, problems[0].message
    return vocabulary


def define(file: ast.File, vocabulary: Vocabulary, problems: list[Diagnostic]) -> Vocabulary:
    """Enter the definitions of a file; two of one name are reported."""
    seen: dict[tuple[str, str], Span] = {}
    for item in file.items:
        if isinstance(item, ast.OpDef):
            _once(seen, ("op", item.name), item.name_span, problems)
            operands = tuple(p.name for p in item.parameters if p.default is None)
            attributes = {p.name: p.default for p in item.parameters if p.default is not None}
            vocabulary.definitions[item.name] = Op(item, vocabulary, operands, attributes)
            names: dict[tuple[str, str], Span] = {}
            for parameter in item.parameters:
                _once(names, ("parameter", parameter.name), parameter.span, problems)
        elif isinstance(item, ast.BlockDef):
            _once(seen, ("op", item.name), item.name_span, problems)
            vocabulary.definitions[item.name] = Block(item, vocabulary)
            names = {}
            for name in item.parameters:
                _once(names, ("parameter", name.name), name.span, problems)
        elif isinstance(item, ast.ChoiceDef):
            if item.name == "pool":
                problems.append(
                    holes.RESERVED_CHOICE(
                        item.name_span,
                        "a choice called `pool`",
                        label="`?pool` is any value in scope",
                        help="call it otherwise",
                    )
                )
            _once(seen, ("choice", item.name), item.name_span, problems)
            vocabulary.choices[item.name] = item
    return vocabulary


def _once(seen: dict[tuple[str, str], Span], key: tuple[str, str], span: Span, problems: list[Diagnostic]) -> None:
    if key in seen:
        problems.append(
            codes.DEFINED_TWICE(
                span, f"the {key[0]} `{key[1]}` is defined twice", label="second definition",
                related=[(seen[key], "first definition")], help="give one of them another name",
            )
        )  # fmt: skip
    seen.setdefault(key, span)


MAX_OPEN = 64
"""Deepest nesting of files that use files."""


class Library:
    """The files that a text brings in, each read once.

    Args:
        root: the folder that paths may not leave; None for a text that does not lie in a file.
    """

    def __init__(self, root: Path | None, problems: list[Diagnostic]) -> None:
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
                    merged = Vocabulary(below, partly=not theirs.whole or path in self._damaged)
                    at: Vocabulary | None = theirs
                    layers = []
                    while at is not None and at is not prelude():
                        layers.append(at)
                        at = at.parent
                    for layer in reversed(layers):
                        merged.definitions.update(layer.definitions)
                        merged.choices.update(layer.choices)
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
            self.problems.append(
                structure.NO_FOLDER(
                    span, f'"{path}" is looked for beside the file, and this text is in no file',
                    label="a path needs a folder", help="save the text in a file",
                )
            )  # fmt: skip
            return None
        try:
            target = (folder / path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte in it, a name too long, a circle of links
            self._not_found(span, f"{printable(path)}: {getattr(error, 'strerror', None) or error}")
            return None
        if not target.is_relative_to(self.root):
            self.problems.append(
                structure.OUTSIDE(
                    span, f'"{path}" leads out of the folder of the file that is read',
                    label=f"expected a file below {self.root.name}/", help="copy the file into this folder",
                )
            )  # fmt: skip
            return None
        if target in self._open:
            circle = " -> ".join(p.name for p in [*self._open[self._open.index(target) :], target])
            self.problems.append(
                structure.CYCLE(
                    span, f"{target.name} is reached from itself: {circle}", label="this closes the circle",
                    help="move what both files need into a third one",
                )
            )  # fmt: skip
            return None
        if len(self._open) > MAX_OPEN:
            self.problems.append(
                structure.TOO_MANY(span, f"files use files more than {MAX_OPEN} deep", label="this one is not read")
            )
            return None
        if target not in self._files:
            try:
                source = read_source(target, name=str(Path(span.source.name).parent / path))
            except UnreadableFile as error:
                self._not_found(span, str(error))
                return None
            parsed = parse(source)
            self.problems.extend(parsed.problems)
            self._files[target] = parsed.file
            if parsed.lost is not None:
                self._damaged.add(target)
        return target, self._files[target]

    def _not_found(self, span: Span, why: str) -> None:
        self.problems.append(
            structure.NOT_FOUND(span, f"cannot read {why}", label="named here", help="paths are relative to the file")
        )
