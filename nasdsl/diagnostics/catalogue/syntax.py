"""NAS1xx: what is no text of the language."""

import re

from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

_GOOD = """\
decoder d {
  input c3
  fpn(width=64, norm=bn) { output p3 = conv_3x3(c3) }
  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }
  predict fcos(centerness=cls)
}"""

ILLEGAL_CHARACTER = Code(
    "NAS101",
    "a character that is not part of the language",
    "Texts are made of names, numbers, strings in double quotes, the brackets ( ) { } [ ] and the signs "
    ", ; = : -> .. ? | + - * / <= >= < > ==. Anything else may stand only in a comment, behind `#`.",
    _GOOD.replace("conv_3x3(c3)", "conv_3x3(c3$)"),
    _GOOD,
)

UNEXPECTED = Code(
    "NAS102",
    "something that does not fit here",
    "The text is well formed up to this place, and what stands here cannot follow. The message lists what could. Where "
    "one missing or superfluous sign explains it, the message says which, and the rest of the file is still checked.",
    _GOOD.replace("conv_3x3(c3)", "conv_3x3(c3"),
    _GOOD,
)

UNEXPECTED_END = Code(
    "NAS103",
    "the text ends too early",
    "The file ends inside a statement or a bracket, most often because a closing `}` is missing.",
    _GOOD[:-1],
    _GOOD,
)

OPEN_STRING = Code(
    "NAS104",
    "a string that does not end",
    'File names stand in double quotes, both on one line: `use "my_ops.nas"`.',
    'use "my_ops.nas\n' + _GOOD,
    _GOOD,
)

BAD_NUMBER = Code(
    "NAS105",
    "neither a number nor a name",
    "Numbers are digits, with a fraction and one of the suffixes K (thousand), M (million) and G (billion) where a "
    "quantity is meant: `120G`, `1.5M`. They have at most 18 digits, and 40 more after the point. Names start with a letter "
    "or `_`.",
    _GOOD.replace("width=64, norm=bn", "width=64px, norm=bn"),
    _GOOD,
)

RESERVED_WORD = Code(
    "NAS106",
    "a word of the language used as a name",
    "The words that begin statements cannot name values, ops or blocks: use, op, agg, choice, block, decoder, input, "
    "require, predict, fpn, head, from, output, merge, dangling, into, repeat, in, let, at.",
    _GOOD.replace("output p3 = conv_3x3(c3)", "merge = conv_3x3(c3)\n    output p3 = skip(merge)"),
    _GOOD.replace("output p3 = conv_3x3(c3)", "merge_ = conv_3x3(c3)\n    output p3 = skip(merge_)"),
)

TOO_DEEP = Code(
    "NAS107",
    "an expression nested too deep",
    "Brackets of all kinds together nest at most 100 deep, and an attribute's value has at most 100 operators. Name "
    "intermediate values, or define an `op`.",
    _GOOD.replace("conv_3x3(c3)", "skip(" * 100 + "c3" + ")" * 100),
    _GOOD.replace("conv_3x3(c3)", "skip(" * 20 + "c3" + ")" * 20),
)

TOO_LARGE = Code(
    "NAS108",
    "a text that is too long",
    "A text has at most 4,000,000 characters. A decoder of 10,000 blocks has half a million; use `repeat` and `block` "
    "for what repeats. (The example stands for four million characters.)",
    "# this line a hundred thousand times",
    _GOOD,
)

NOT_UTF8 = Code(
    "NAS109",
    "a file that is not UTF-8 text",
    "A `.nas` file is text in UTF-8, with or without a byte-order mark. The message gives the offset of the first byte that "
    "is not UTF-8, counted from 0, and what the file looks like. Windows PowerShell writes UTF-16 with `>` and `Out-File`; "
    '`Set-Content -Encoding utf8` and the editor\'s "Save with encoding" write UTF-8. (The example stands for a file with the '
    "byte 0xe9, which is `é` in Latin-1, in place of U+FFFD.)",
    "# The best d\ufffdcoder so far\n" + _GOOD,
    "# The best décoder so far\n" + _GOOD,
)


# ------------------------------------------------------------------------------------------------ messages

_OF_KERNELS = re.compile(r"(deform_)?conv|pool")


def number_as_operand(span: Span, callee: str) -> Diagnostic:
    """A number, or arithmetic, among the operands of anything but ``mul`` and ``add``."""
    text = " ".join(span.text.split())
    if text[0] == '"':
        return UNEXPECTED(span, f"the string {text} where a value is expected", label="expected a value, or a call")
    help = "operands are values; an attribute is set by its name"
    if callee in ("sum", "psum", "weighted_add"):
        help = "`add(x, 1)` adds a number, `mul(x, 0.5)` multiplies by one"
    elif callee == "max":
        help = "`relu(x)` is the maximum of x and 0; no other number is compared with"
    elif _OF_KERNELS.fullmatch(callee) and text.isdigit():
        help += f": `k={text}`"
    return UNEXPECTED(
        span, f"the number `{text}` where a value is expected", label="expected a value, or a call", help=help if callee else ""
    )  # fmt: skip


def number_of_several_calls(span: Span) -> Diagnostic:
    """A number behind a hole of ``add``, ``mul`` and others: ``?(add | mul)(x, 2)``."""
    return UNEXPECTED(
        span, f"the number `{' '.join(span.text.split())}` for calls that are not alike", label="expected a value, or a call",
        help="`add` adds it, `mul` multiplies by it, others take none: choose between whole calls, `?(add(x, 1) | mul(x, 2))`",
    )  # fmt: skip


def arithmetic_on_values(span: Span) -> Diagnostic:
    """``relu(x + y)``."""
    return UNEXPECTED(
        span, "arithmetic where a value is expected", label="expected a value, or a call",
        help="features, and numbers, are added with `add(x, y)` and multiplied with `mul(x, y)`",
    )  # fmt: skip


def value_in_brackets(span: Span, inner: str) -> Diagnostic:
    """``relu((x))``."""
    return UNEXPECTED(
        span, "a value in brackets", label="expected a value, or a call", help="leave the brackets out", fix=inner
    )
