"""Mutants of source files, made by the operators of mutmut.

mutmut's own runner is not used: it leaves out decorated functions (properties, what is cached), puts a wrapper around each
function, which changes the depth of the stack that some tests are about, runs all tests of a function, and takes no sample.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

LEFT_ALONE = (cst.Annotation, cst.Decorator, cst.Parameters)
"""Parts of functions that run once, when the function is made."""


@dataclass(frozen=True)
class Mutant:
    """One changed expression or statement of a function.

    Attributes:
        path: of the source, below the root.
        function: its qualified name, or of the one that it is defined in.
        lines: first and last one of the changed statement.
        change: what stood there, and what stands there now.
        name: digest of path, text of the function and change: of a function that was edited there are others.
        code: makes the changed source.
    """

    path: str
    function: str
    lines: tuple[int, int]
    change: str
    name: str
    code: Callable[[], str]


def mutants(path: Path, root: Path) -> Iterator[Mutant]:
    """All mutants of a file, in the order of the source.

    Constants of modules and classes, defaults, decorators, documentation, types and the words of what is raised are left alone.
    """
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    visitor = _Visitor(wrapper.module)
    wrapper.visit(visitor)
    relative = path.relative_to(root).as_posix()
    seen: Counter[str] = Counter()
    for function, text, lines, old, new in visitor.found:
        change = f"{_short(wrapper.module, old)} → {_short(wrapper.module, new)}"
        same = f"{relative} {function} {text} {change}"
        seen[same] += 1
        name = hashlib.sha256(f"{same} {seen[same]}".encode()).hexdigest()[:12]
        yield Mutant(relative, function, lines, change, name, partial(_changed, wrapper.module, old, new))


def is_program(mutant: Mutant, source: str) -> bool:
    """Whether it compiles, and is not the same program."""
    try:
        return ast.dump(ast.parse(mutant.code())) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _changed(module: cst.Module, old: cst.CSTNode, new: cst.CSTNode) -> str:
    return module.deep_replace(old, new).code  # type: ignore[arg-type]  # a node is replaced by one of its kind


def _short(module: cst.Module, node: cst.CSTNode) -> str:
    return " ".join(module.code_for_node(node).split())[:160]


class _Visitor(cst.CSTVisitor):
    """Finds what the operators can change in functions."""

    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self.found: list[tuple[str, str, tuple[int, int], cst.CSTNode, cst.CSTNode]] = []
        self._module = module
        self._scopes: list[cst.FunctionDef | cst.ClassDef] = []
        self._text = ""

    def on_visit(self, node: cst.CSTNode) -> bool:
        function = next((scope for scope in self._scopes if isinstance(scope, cst.FunctionDef)), None)
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            if function is None:
                self._text = self._module.code_for_node(node)
            self._scopes.append(node)
            return True
        if isinstance(node, LEFT_ALONE) or (function is not None and self._is_left_alone(node)):
            return False
        if function is not None:
            name = ".".join(scope.name.value for scope in self._scopes[: self._scopes.index(function) + 1])
            self.found.extend(
                (name, self._text, self._lines(node), node, changed)
                for kind, operator in mutation_operators
                if isinstance(node, kind)
                for changed in operator(node)
                if not self._are_words(node)
            )
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._scopes and self._scopes[-1] is original_node:
            self._scopes.pop()

    def _above(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        while not isinstance(node, cst.FunctionDef):
            yield node
            node = self.get_metadata(ParentNodeProvider, node)

    def _is_left_alone(self, node: cst.CSTNode) -> bool:
        """Whether it is documentation, words of what is raised, or a type."""
        if isinstance(node, cst.BaseString):
            return any(
                isinstance(above, cst.Raise) or (isinstance(above, cst.Expr) and isinstance(above.value, cst.BaseString))
                for above in self._above(node)
            )
        if isinstance(node, cst.Arg):
            call = self.get_metadata(ParentNodeProvider, node)
            return (
                isinstance(call, cst.Call)
                and isinstance(call.func, cst.Name)
                and call.func.value == "cast"
                and call.args[0] is node
            )
        return False

    def _are_words(self, node: cst.CSTNode) -> bool:
        """Whether it is what is raised, with nothing but words in it."""
        parent = self.get_metadata(ParentNodeProvider, node)
        words = (cst.BaseString, cst.ConcatenatedString, cst.FormattedString)
        return (
            isinstance(parent, cst.Raise) and isinstance(node, cst.Call) and all(isinstance(a.value, words) for a in node.args)
        )

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        """Of the statement; of one with statements in it, those before them."""
        for above in self._above(node):
            if isinstance(above, (cst.BaseSmallStatement, cst.BaseCompoundStatement, cst.ExceptHandler, cst.MatchCase)):
                place: CodeRange = self.get_metadata(PositionProvider, above)
                body = getattr(above, "body", None)
                if not isinstance(body, cst.IndentedBlock):
                    return place.start.line, place.end.line
                first = self.get_metadata(PositionProvider, body.body[0]).start.line
                return place.start.line, max(place.start.line, first - 1)
        raise AssertionError("an expression stands in a statement")
