"""A lexer for Pygments: `.nas` texts in pages and on terminals. Pygments finds it by the entry point ``pygments.lexers``."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pygments.lexer import RegexLexer, bygroups, include, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from nasdsl.syntax.lexer import RESERVED

_NAME: Final = r"[A-Za-z_][A-Za-z_0-9]*"
_GAP: Final = r"[ \t\r\n]+"


class NasLexer(RegexLexer):
    """Tokens of a `.nas` text, told by its letters alone.

    A word before a bracket is something that is called, one before ``=`` in brackets an attribute.
    """

    name = "nasdsl"
    aliases: ClassVar[list[str]] = ["nas", "nasdsl"]
    filenames: ClassVar[list[str]] = ["*.nas"]
    mimetypes: ClassVar[list[str]] = ["text/x-nas"]

    tokens: ClassVar[dict[str, list[Any]]] = {
        "root": [
            include("text"),
            (r"\(", Punctuation, "brackets"),
            (r"\)", Punctuation),
            (rf"(op|agg|block)({_GAP})({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Function)),
            (rf"(choice|decoder)({_GAP})({_NAME})", bygroups(Keyword.Declaration, Whitespace, Name.Class)),
            (rf"(shared)({_GAP})({_NAME})(?=\s*\()", bygroups(Keyword.Declaration, Whitespace, Name.Function)),
            (rf"(predict)({_GAP})({_NAME})", bygroups(Keyword, Whitespace, Name.Class)),
            (rf"(require)({_GAP})({_NAME})", bygroups(Keyword, Whitespace, Name.Builtin)),
            (rf"(?<=[0-9smKMG][ \t\r\n])(on)({_GAP})({_NAME})", bygroups(Keyword, Whitespace, Name.Builtin)),
            (r"detector(?=\s*\()", Keyword),
            (r"(?:cls|box|both)(?=\s*:)", Name.Label),
            include("names"),
        ],
        "brackets": [
            include("text"),
            (r"\(", Punctuation, "#push"),
            (r"\)", Punctuation, "#pop"),
            (rf"{_NAME}(?=\s*=(?!=))", Name.Attribute),
            include("names"),
        ],
        "text": [
            (r"[ \t\r\n]+", Whitespace),
            (r"#[^\n]*", Comment.Single),
            (r'"[^"\n]*"', String),
            (r"[0-9]+x[0-9]+\b", Number.Integer),
            (r"[0-9]+(?:\.[0-9]+)?(?:us|ms|s)\b", Number.Float),
            (r"[0-9]+\.[0-9]+[KMG]?\b", Number.Float),
            (r"[0-9]+[KMG]?\b", Number.Integer),
            (rf"(\?)({_NAME})", bygroups(Operator, Name.Constant)),
            (r"->|\.\.|<=|>=|==|[?|+*/<>=-]", Operator),
            (r"[{}\[\],;:]", Punctuation),
        ],
        "names": [
            (words(tuple(RESERVED), suffix=r"\b"), Keyword),
            (r"(?:true|false|none|auto)\b(?!\s*\()", Keyword.Constant),
            (rf"{_NAME}(?=\s*\()", Name.Function),
            (_NAME, Name.Variable),
        ],
    }

    @staticmethod
    def analyse_text(text: str) -> float:
        """How certain it is that a text without a file name is a `.nas` text."""
        return 0.6 if "decoder " in text and ("fpn(" in text or "fpn from" in text or "fpn (" in text) else 0.0
