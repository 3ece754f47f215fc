"""The grammar of the whole language, in each format."""

from __future__ import annotations

from typing import Final

from nasdsl.grammar_export import gbnf, lark, llguidance
from nasdsl.grammar_export.ebnf import language_rules, without_left_recursion, without_synonyms
from nasdsl.grammar_export.gaps import with_gaps
from nasdsl.grammar_export.terminals import is_word
from nasdsl.syntax.lexer import MAX_DECIMALS, MAX_DIGITS, MAX_NESTING
from nasdsl.syntax.parser import MAX_CHARACTERS

FORMATS: Final = ("lark", "gbnf", "llguidance")

COMMENTS: Final = {"lark": "//", "gbnf": "#", "llguidance": "//"}

HOW_TO_READ: Final = {
    "lark": 'Read it with Lark(text, parser="lalr").',
    "gbnf": "For llama.cpp and other programs that read its GBNF; it begins at root.",
    "llguidance": "For llguidance; it begins at start.",
}

NOT_SAID: Final = (
    f"brackets and operators nest at most {MAX_NESTING} deep",
    f"a number has at most {MAX_DIGITS} digits, and {MAX_DECIMALS} more behind the point",
    f"a text has at most {MAX_CHARACTERS:,} characters, which are UTF-8",
)
"""What the parser demands beside the grammar."""


def language_grammar(format: str) -> str:
    """The grammar of the language: a text has no syntax error if the grammar accepts it, within the limits of `NOT_SAID`.

    Args:
        format: one of `FORMATS`.
    """
    rules = language_rules()
    if format == "lark":
        text = lark.write_language(rules)
    else:
        spaced = with_gaps(without_synonyms({n: without_left_recursion(d) for n, d in rules.items()}), is_word, "start")
        text = (gbnf if format == "gbnf" else llguidance).write_language(spaced, "start")
    head = [
        "The language .nas, made by `nasdsl grammar` from the grammar and the scanner of nasdsl.",
        HOW_TO_READ[format],
        "It accepts the texts that have no syntax error; `nasdsl check` checks what they mean. Limits that it does not say:",
        *(f"- {limit}" for limit in NOT_SAID),
    ]
    return header(head, format) + text


def header(lines: list[str], format: str) -> str:
    """Lines as comments, and an empty one behind them."""
    return "".join(f"{COMMENTS[format]} {line}\n" for line in lines) + "\n"
