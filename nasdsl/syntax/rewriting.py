"""A decoder's text with another width or prediction: the same text, comments and lines included, but for that. And a text
made of two: the fpn of one, the rest of the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from nasdsl.diagnostics import Source
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import parse
from nasdsl.syntax.printer import print_file


class Clash(ValueError):
    """Two texts that cannot become one: a name means something in the first, and something else in the second."""


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


def with_fpn(source: Source, other: Source) -> Source:
    """The text with inputs and fpn of another one's decoder, written out, and with all that this fpn calls by name.

    Args:
        source: a decoder or a space, without syntax errors.
        other: a decoder that takes nothing from other files.

    Returns:
        in the canonical layout, without comments: what they say may be true no more.

    Raises:
        Clash: both define a word that the fpn uses, and not in the same way.
    """
    file, theirs = parse(source).file, parse(other).file
    decoder, giver = _decoder(file), _decoder(theirs)
    fpn = next(item for item in giver.items if isinstance(item, ast.Fpn))
    lets = _needed(fpn, [item for item in giver.items if isinstance(item, ast.Let)])
    definitions = _needed(fpn, [item for item in theirs.items if isinstance(item, ast.OpDef | ast.BlockDef)])
    fresh_lets = _fresh(lets, decoder.items, decoder.name)
    fresh = _fresh(definitions, file.items, decoder.name)
    items: list[ast.DecoderItem] = [*fresh_lets, *(item for item in giver.items if isinstance(item, ast.Input))]
    for item in decoder.items:
        if isinstance(item, ast.Fpn):
            items.append(fpn)
        elif not isinstance(item, ast.Input):
            items.append(item)
    whole = replace(decoder, items=tuple(items))
    made = ast.File(file.span, (*(whole if item is decoder else item for item in file.items), *fresh))
    return Source(source.name, print_file(made))


_D = TypeVar("_D", ast.Let, ast.OpDef | ast.BlockDef)


def _decoder(file: ast.File) -> ast.Decoder:
    return next(item for item in file.items if isinstance(item, ast.Decoder))


def _needed(section: ast.Node, known: Iterable[_D]) -> list[_D]:
    """Those of `known` that a section names, or that one of them names; in their order."""
    by_name = {item.name: item for item in known}
    found: set[str] = set()
    waiting: list[ast.Node] = [section]
    while waiting:
        words = set(re.findall(r"\w+", waiting.pop().span.text)) & by_name.keys() - found
        found |= words
        waiting += [by_name[word] for word in words]
    return [item for name, item in by_name.items() if name in found]


def _fresh(wanted: Iterable[_D], present: Iterable[ast.Node], where: str) -> list[_D]:
    """Those that are not there yet.

    Raises:
        Clash: one of this name is there, and is another.
    """
    there = {item.name: item for item in present if isinstance(item, ast.Let | ast.OpDef | ast.BlockDef)}
    for item in wanted:
        if item.name in there and there[item.name] != item:
            raise Clash(
                f"`{item.name}` is defined by the fpn's text, and otherwise by that of `{where}`, so that they cannot be one "
                "text: give it another name in one of them"
            )
    return [item for item in wanted if item.name not in there]


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
