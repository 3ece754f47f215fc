"""A decoder's text with another width or prediction: the same text, comments and lines included, but for that."""

from __future__ import annotations

from collections.abc import Iterator

from nasdsl.diagnostics import Source
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import parse


def at_width(source: Source, width: int) -> Source:
    """The text with `width` as the width of fpn and head; a text without a decoder, or with syntax errors, stays as it is.

    A width that is the word of a `let` is changed in the `let`, so that all that is reckoned from it follows. A section
    that is taken with ``from`` and sets no width gets one. Widths that statements set as numbers stay.
    """
    parsed = parse(source)
    decoder = next((item for item in parsed.file.items if isinstance(item, ast.Decoder)), None)
    if decoder is None or parsed.problems:
        return source
    lets = {item.name: item for item in decoder.items if isinstance(item, ast.Let)}
    edits = {
        edit for item in decoder.items if isinstance(item, ast.Fpn | ast.Head) for edit in _edits(item, lets, width, source)
    }
    text = source.text
    for start, end, new in sorted(edits, reverse=True):  # from the end, so that earlier offsets stay right
        text = text[:start] + new + text[end:]
    return Source(source.name, text)


def predicting(source: Source, prediction: str) -> Source:
    """The text with another prediction, such as ``fcos(centerness=box, boxes=relu)``; a text without a decoder, or with
    syntax errors, stays as it is."""
    parsed = parse(source)
    decoder = next((item for item in parsed.file.items if isinstance(item, ast.Decoder)), None)
    predict = next((item for item in decoder.items if isinstance(item, ast.Predict)), None) if decoder else None
    if predict is None or parsed.problems:
        return source
    text = source.text
    return Source(source.name, f"{text[: predict.span.start]}predict {prediction}{text[predict.span.end :]}")


def _edits(section: ast.Fpn | ast.Head, lets: dict[str, ast.Let], width: int, source: Source) -> Iterator[tuple[int, int, str]]:
    """What to put in place of which stretch: (start, end, new text)."""
    setting = next((s for s in section.settings if s.name == "width"), None)
    if setting is not None:
        value = setting.value
        seen: set[str] = set()
        while isinstance(value, ast.Reference) and value.index is None and value.name in lets and value.name not in seen:
            seen.add(value.name)
            value = lets[value.name].value
        yield value.span.start, value.span.end, str(width)
    elif section.settings:
        start = section.settings[0].span.start
        yield start, start, f"width={width}, "
    else:
        word, following = _first_tokens(section, source)
        if following is None:
            yield word, word, f"(width={width})"
        else:
            yield following, following, f"width={width}"


def _first_tokens(section: ast.Fpn | ast.Head, source: Source) -> tuple[int, int | None]:
    """Where the word `fpn` or `head` ends, and where the bracket behind it does, if there is one."""
    tokens = (token for token in scan(source, []) if token.start >= section.span.start)
    word, behind = next(tokens), next(tokens)
    return word.end, behind.end if behind.type == "LPAR" else None
