"""Changes of a decoder's text: another width, another prediction, the fpn of another decoder.

Width and prediction are replaced in place, so that comments and lines stay.
"""

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


class NameClash(ValueError):
    """Two texts that cannot be combined: they define one name differently."""


def with_width(source: Source, width: int) -> Source:
    """Set the width of fpn and head. A text without a decoder, or with syntax errors, is returned unchanged.

    A width that a `let` defines is changed in the `let`, so that whatever is computed from it follows. A section that is
    taken with ``from`` and sets no width gets one. Numbers in statements (``conv_1x1(x, width=32)``) stay.
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


def with_prediction(source: Source, prediction: str) -> Source:
    """Replace the prediction, for example by ``fcos(centerness=box, boxes=relu)``.

    A text without a decoder or prediction, or with syntax errors, is returned unchanged.
    """
    parsed = parse(source)
    decoder = next((item for item in parsed.file.items if isinstance(item, ast.Decoder)), None)
    predict = next((item for item in decoder.items if isinstance(item, ast.Predict)), None) if decoder else None
    if predict is None or parsed.problems:
        return source
    text = source.text
    return Source(source.name, f"{text[: predict.span.start]}predict {prediction}{text[predict.span.end :]}")


def with_fpn(source: Source, other: Source) -> Source:
    """Replace inputs and fpn by those of another decoder, together with the definitions that this fpn uses.

    Args:
        source: a decoder or a space, without syntax errors.
        other: a decoder that uses no other files.

    Returns:
        the text in the canonical layout, without comments, which may no longer be true.

    Raises:
        NameClash: both texts define a name that the fpn uses, differently.
    """
    file, other_file = parse(source).file, parse(other).file
    decoder, other_decoder = _decoder(file), _decoder(other_file)
    fpn = next(item for item in other_decoder.items if isinstance(item, ast.Fpn))
    lets = _needed(fpn, [item for item in other_decoder.items if isinstance(item, ast.Let)])
    definitions = _needed(fpn, [item for item in other_file.items if isinstance(item, ast.OpDef | ast.BlockDef)])
    missing_lets = _missing(lets, decoder.items, decoder.name)
    missing = _missing(definitions, file.items, decoder.name)
    items: list[ast.DecoderItem] = [*missing_lets, *(item for item in other_decoder.items if isinstance(item, ast.Input))]
    for item in decoder.items:
        if isinstance(item, ast.Fpn):
            items.append(fpn)
        elif not isinstance(item, ast.Input):
            items.append(item)
    combined = replace(decoder, items=tuple(items))
    result = ast.File(file.span, (*(combined if item is decoder else item for item in file.items), *missing))
    return Source(source.name, print_file(result))


_D = TypeVar("_D", ast.Let, ast.OpDef | ast.BlockDef)


def _decoder(file: ast.File) -> ast.Decoder:
    return next(item for item in file.items if isinstance(item, ast.Decoder))


def _needed(section: ast.Node, known: Iterable[_D]) -> list[_D]:
    """Those of `known` that a section uses, directly or through each other; in their order."""
    by_name = {item.name: item for item in known}
    found: set[str] = set()
    waiting: list[ast.Node] = [section]
    while waiting:
        words = set(re.findall(r"\w+", waiting.pop().span.text)) & by_name.keys() - found
        found |= words
        waiting += [by_name[word] for word in words]
    return [item for name, item in by_name.items() if name in found]


def _missing(needed: Iterable[_D], present: Iterable[ast.Node], where: str) -> list[_D]:
    """Those needed definitions that are not present.

    Raises:
        NameClash: a different one of the same name is.
    """
    by_name = {item.name: item for item in present if isinstance(item, ast.Let | ast.OpDef | ast.BlockDef)}
    for item in needed:
        if item.name in by_name and by_name[item.name] != item:
            raise NameClash(
                f"`{item.name}` is defined by the fpn's text, and otherwise by that of `{where}`, so that they cannot be one "
                "text: give it another name in one of them"
            )
    return [item for item in needed if item.name not in by_name]


def _edits(section: ast.Fpn | ast.Head, lets: dict[str, ast.Let], width: int, source: Source) -> Iterator[tuple[int, int, str]]:
    """The replacements that set the width of a section, each (start, end, new text)."""
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
    """Offsets of the end of the word `fpn` or `head`, and of the end of the bracket after it, if there is one."""
    tokens = (token for token in scan(source, []) if token.start >= section.span.start)
    word, after = next(tokens), next(tokens)
    return word.end, after.end if after.type == "LPAR" else None
