"""Changes of a decoder's text: another width, detector or prediction, the fpn of another decoder.

All but the fpn are replaced in place, so that comments and lines stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeAlias, TypeVar

from nasdsl.diagnostics import Source
from nasdsl.syntax import ast
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import parse
from nasdsl.syntax.printer import print_file, print_name


class NameClash(ValueError):
    """Two texts that cannot be combined: they define one name differently."""


def with_width(source: Source, *widths: int) -> Source:
    """Set the width of fpn and head. A text without a decoder, or with syntax errors, is returned unchanged.

    Of several widths, a `let` with a hole chooses, for fpn and head alike.

    No width changes nothing. A width that a `let` defines is changed in the `let`, so that whatever is computed from it
    follows. A section that is taken with ``from`` and sets no width gets one. Numbers in statements
    (``conv_1x1(x, width=32)``) stay.
    """
    parsed = parse(source)
    decoder = parsed.file.decoder
    if decoder is None or parsed.problems or not widths:
        return source
    sections = [item for item in decoder.items if isinstance(item, ast.Fpn | ast.Head)]
    lets = _lets(decoder)
    value = _one_of([str(width) for width in widths])
    edits = {_edit_of_width(section, lets, value, source) for section in sections}
    if len(widths) > 1 and len(edits) > 1:
        name = _free_name("w", source)
        edits = {_edit_of_width(section, lets, name, source) for section in sections}
        edits.add(_insertion(decoder, f"let {name} = {value}", source, before=next(iter(lets.values()), None)))
    return _edited(source, edits)


def with_detector(source: Source, sizes: Sequence[tuple[int, int]] = (), backbones: Sequence[str] = ()) -> Source:
    """Set the detector that a decoder is for. A text without a decoder, or with syntax errors, is returned unchanged.

    An attribute that a `let` defines is changed in the `let`.

    Args:
        sizes: height and width of the images; of several, a hole chooses. None leaves what the text says.
        backbones: the same for the backbone.

    Raises:
        ValueError: no text can hold a name of `backbones`.
    """
    parsed = parse(source)
    decoder = parsed.file.decoder
    if decoder is None or parsed.problems:
        return source
    wanted = {"size": [f"{height}x{width}" for height, width in sizes], "backbone": [print_name(name) for name in backbones]}
    values = {name: _one_of(texts) for name, texts in wanted.items() if texts}
    detector = next((item for item in decoder.items if isinstance(item, ast.Detector)), None)
    if not values:
        return source
    if detector is None:
        statement = f"detector({', '.join(f'{name}={value}' for name, value in values.items())})"
        return _edited(source, {_insertion(decoder, statement, source)})
    edits: set[_Edit] = set()
    lets, settings = _lets(decoder), {setting.name: setting for setting in detector.settings}
    for name, value in values.items():
        if name in settings:
            edits.add(_edit_of_setting(settings[name], lets, value))
        elif name == "size":
            edits.add((detector.settings[0].span.start, detector.settings[0].span.start, f"size={value}, "))
        else:
            edits.add((detector.settings[-1].span.end, detector.settings[-1].span.end, f", backbone={value}"))
    return _edited(source, edits)


def with_prediction(source: Source, prediction: str) -> Source:
    """Replace the prediction, for example by ``fcos(centerness=box, boxes=relu)``.

    A text without a decoder or prediction, or with syntax errors, is returned unchanged.
    """
    parsed = parse(source)
    decoder = parsed.file.decoder
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
    decoder, other_decoder = file.decoder, other_file.decoder
    assert decoder is not None
    assert other_decoder is not None
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


_Edit: TypeAlias = tuple[int, int, str]
"""A replacement: its start and end in the text, and what is put there."""


def _edited(source: Source, edits: Iterable[_Edit]) -> Source:
    text = source.text
    for start, end, new in sorted(edits, reverse=True):  # from the end, so that earlier offsets stay right
        text = text[:start] + new + text[end:]
    return Source(source.name, text)


def _one_of(texts: Sequence[str]) -> str:
    """A value, or a hole of several."""
    return texts[0] if len(texts) == 1 else f"?({' | '.join(texts)})"


def _lets(decoder: ast.Decoder) -> dict[str, ast.Let]:
    return {item.name: item for item in decoder.items if isinstance(item, ast.Let)}


def _free_name(name: str, source: Source) -> str:
    """A name that no token of the text is: this one, or with 2, 3, … behind it."""
    taken = {token.value for token in scan(source, [])}
    return next(n for n in (name if i == 1 else f"{name}{i}" for i in count(1)) if n not in taken)


def _insertion(decoder: ast.Decoder, statement: str, source: Source, before: ast.DecoderItem | None = None) -> _Edit:
    """The edit that puts a statement into a decoder: before an item, or behind `input`, else at the beginning."""
    inputs = [item for item in decoder.items if isinstance(item, ast.Input)]
    if before is None and inputs:
        place = inputs[-1].span.end
        rest = re.compile(r"[ \t]*;?[ \t]*(?:#[^\n]*)?(?=\n)").match(source.text, place)
        if rest is None:  # more follows on the line
            return place, place, f"; {statement}"
        return rest.end(), rest.end(), f"\n{_indentation(inputs[-1], source) or '  '}{statement}"
    item = before or decoder.items[0]
    indentation = _indentation(item, source)
    return item.span.start, item.span.start, f"{statement}\n{indentation}" if indentation else f"{statement}; "


def _indentation(item: ast.DecoderItem, source: Source) -> str:
    """The white space that an item stands behind on its line; empty where other things stand before it."""
    line = source.text[source.text.rfind("\n", 0, item.span.start) + 1 : item.span.start]
    return "" if line.strip() else line


def _edit_of_setting(setting: ast.Setting, lets: dict[str, ast.Let], new: str) -> _Edit:
    """The replacement of an attribute's value, or of the value of the `let` that it names."""
    value = setting.value
    seen: set[str] = set()
    while isinstance(value, ast.Reference) and value.index is None and value.name in lets and value.name not in seen:
        seen.add(value.name)
        value = lets[value.name].value
    return value.span.start, value.span.end, new


def _edit_of_width(section: ast.Fpn | ast.Head, lets: dict[str, ast.Let], width: str, source: Source) -> _Edit:
    """The replacement that sets the width of a section."""
    setting = next((s for s in section.settings if s.name == "width"), None)
    if setting is not None:
        return _edit_of_setting(setting, lets, width)
    if section.settings:
        start = section.settings[0].span.start
        return start, start, f"width={width}, "
    word, following = _first_tokens(section, source)
    if following is None:
        return word, word, f"(width={width})"
    return following, following, f"width={width}"


def _first_tokens(section: ast.Fpn | ast.Head, source: Source) -> tuple[int, int | None]:
    """Offsets of the end of the word `fpn` or `head`, and of the end of the bracket after it, if there is one."""
    tokens = (token for token in scan(source, []) if token.start >= section.span.start)
    word, after = next(tokens), next(tokens)
    return word.end, after.end if after.type == "LPAR" else None
