"""Other programs that read the grammars: what they accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lark
import pytest

from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.syntax.lexer import Tok, scan
from nasdsl.syntax.parser import parse, tables
from nasdsl.syntax.tables import TreeParser

TOO_DEEP = "NAS107"
"""The one finding of the parser that the grammar names as a limit and does not say."""


def syntax_errors(text: str) -> list[str]:
    """Codes of the parser's findings."""
    return [problem.code for problem in parse(Source("t.nas", text)).problems]


def has_syntax_error(text: str) -> bool:
    """Whether the parser has a finding; without looking for the others, which takes longer."""
    source = Source("t.nas", text)
    problems: list[Diagnostic] = []
    found = [*scan(source, problems), Tok("$END", "", len(text), len(text), source)]
    parser = TreeParser(tables())
    return bool(problems) or parser.feed(found, 0, len(found)) < len(found) or parser.tree is None


def lark_accepts(grammar: str, **options: Any) -> Callable[[str], bool]:
    reader = lark.Lark(grammar, **options)

    def accepts(text: str) -> bool:
        try:
            reader.parse(text)
        except lark.exceptions.LarkError:
            return False
        return True

    return accepts


class _Bytes:
    """A tokenizer with a token for each byte."""

    def __init__(self) -> None:
        self.eos_token_id = 256
        self.bos_token_id = None
        self.tokens = [*(bytes([code]) for code in range(256)), b"<end>"]
        self.special_token_ids = [256]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


class LlGuidance:
    """A grammar in llguidance, which decodes byte by byte."""

    def __init__(self, grammar: str) -> None:
        llguidance: Any = pytest.importorskip("llguidance")
        self.tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()))
        is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, self.tokens)
        assert not is_error, messages
        assert messages == []
        self.start = llguidance.LLMatcher(self.tokens, grammar)

    def accepts(self, text: str) -> bool:
        matcher = self.start.deep_copy()
        data = list(text.encode())
        return bool(matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting())

    def walk(self, choose: Callable[[list[int]], int], length: int) -> bytes | None:
        """A text of bytes that `choose` picks among those that may come next; None if it has not ended at `length`."""
        matcher = self.start.deep_copy()
        out = bytearray()
        while len(out) < length:
            allowed = bytes_of(matcher.compute_bitmask())
            if matcher.is_accepting() and (not allowed or choose([0, 1]) == 0):
                return bytes(out)
            byte = choose(allowed)
            out.append(byte)
            assert matcher.consume_token(byte), matcher.get_error()
        return bytes(out) if matcher.is_accepting() else None


def bytes_of(mask: bytes) -> list[int]:
    """The bytes whose bits are set in a mask, which has that of the end behind them."""
    return [code for code in range(256) if mask[code // 8] >> (code % 8) & 1]
