"""Texts to fuzz with: mutants of right texts, sentences of the grammar, and texts that grow in one direction."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import random_decoders
from language_page import TEXTS
from zoo_files import ZOO

from nasdsl.diagnostics.catalogue import CODES

sys.path.append(str(Path(__file__).parents[1] / "grammar"))
sys.path.append(str(Path(__file__).parents[1] / "diagnostics"))

from gbnf_reader import Grammar
from malformed import MALFORMED

REGRESSIONS = Path(__file__).parents[1] / "data" / "regressions"
MAX_LENGTH = 200_000
"""Characters of the longest text: the limit of the servers."""

TOKEN = re.compile(r'"[^"\n]*"?|#[^\n]*|\d[\w.]*|\w+|\.\.|->|[<>=]=|\s+|.', re.DOTALL)

NUMBERS = (
    "0 1 2 3 4 5 7 8 16 32 64 128 256 -1 0.5 1.5 99999 100000 1000000 4294967296 9999999999999999999 1e3 0x10 1K 2M 3G 1.5 "
    "00 1_0 0.0000001 3. .5 1..2 "
).split()
WORDS = (
    "decoder input fpn head output merge dangling into predict repeat in let shared op block agg choice use require macs "
    "params latency count at on distinct detector cls box both fcos retinanet gfl tal atss c1 c2 c3 c4 c5 c6 c7 p3 p4 p5 x "
    "x1 y none bn gn ln gn4 relu silu width norm act share norms size backbone k stride groups dilation bias to by parts "
    "mode skip conv conv_1x1 conv_3x3 sep_3x3 dconv_3x3 deform_conv up_conv carafe pixel_shuffle attention global_pool pool "
    "sum psum cat concat add mul max weighted_add split resize down down_max up sigmoid hardsigmoid relu norm "
).split()
SIGNS = "( ) { } [ ] , ; = : ? | + - * / -> .. <= >= == ?( ?x \" # @ $ \\ ' ` ~ ^ & % !".split()
ODD = [
    "\x00", "\ufeff", "\u202e", "\u2066", "\U0001f600", "é", "漢", "ß", "\ud800", "\u2028", "\r", "\r\n", "\x1b[2J", "\x0b",
    "\x85", "ﬁ", "K", "\u0300", "٣", "²", "x\u200dy", "\xa0", "\t", "\x7f", "<script>alert(1)</script>",
    "{{7*7}}", "%s%n", "../../x.nas",
]  # fmt: skip


@cache
def seeds() -> list[str]:
    """Right and wrong texts to begin with: the zoo, spaces, the language's page, the catalogue's examples, known mistakes."""
    paths = [*ZOO, *sorted(ZOO[0].parent.rglob("spaces/*.nas")), *sorted(REGRESSIONS.glob("*.nas"))]
    examples = [text for code in CODES.values() for text in (code.bad, code.good) if text]
    return [*(path.read_text(encoding="utf-8") for path in paths), *TEXTS.values(), *examples, *MALFORMED.values()]


@cache
def grammar() -> Grammar:
    """The exported grammar of the language."""
    from nasdsl.grammar_export import language_grammar

    return Grammar(language_grammar("gbnf"))


def pieces(text: str) -> list[str]:
    """Tokens of any text, right or not, with the white space between."""
    return TOKEN.findall(text)


def _token(rng: random.Random) -> str:
    return rng.choice(rng.choice([NUMBERS, WORDS, WORDS, SIGNS, SIGNS, ODD]))


def _nested(rng: random.Random, inside: str) -> str:
    depth = rng.choice([2, 5, 20, 60, 100, 300, 2000])
    start, end = rng.choice([
        ("skip(", ")"), ("add(c3, ", ")"), ("?(", " | skip)"), ("(", ")"), ("conv_3x3(relu(", "))"), ("-(", ")"), ("x[", "]"),
    ])  # fmt: skip
    return start * depth + inside + end * depth


def _many(rng: random.Random, inside: str) -> str:
    return rng.choice([" ", "\n", ", ", "; ", " -> ", " | ", " + "]).join([inside] * rng.choice([2, 10, 100, 1000]))


def _other_word(rng: random.Random, token: str) -> str:
    """Another token of the same kind, so that many texts stay right in their syntax."""
    if token[:1].isdigit():
        return rng.choice(["0", "1", "2", "3", "4", "8", "32", "64", "0.5"]) if rng.random() < 0.7 else rng.choice(NUMBERS)
    if token[:1].isalpha():
        return rng.choice(WORDS)
    return rng.choice(SIGNS)


def gently(rng: random.Random, text: str) -> str:
    """A text in which a name, op or number is another one of the text, so that many mutants check."""
    found = pieces(text)
    after = {i: next((p for p in found[i + 1 : i + 3] if not p.isspace()), "") for i in range(len(found))}
    kinds: dict[str, list[int]] = {"number": [], "op": [], "name": []}
    for i, piece in enumerate(found):
        if piece[:1].isdigit():
            kinds["number"].append(i)
        elif piece[:1].isalpha():
            kinds["op" if after[i] == "(" else "name"].append(i)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = kinds[rng.choice(["number", "op", "op", "name"])]
        if places:
            other = found[rng.choice(places)]
            found[rng.choice(places)] = str(rng.randint(0, 9)) if other.isdigit() and rng.random() < 0.3 else other
    return "".join(found)


def mutated(rng: random.Random, text: str, others: Callable[[], str]) -> str:
    """A text with some of its tokens changed; `others` gives texts to take tokens from."""
    found = pieces(text) or [""]
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5, 12])):
        at = rng.randrange(len(found))
        how = rng.random()
        if how < 0.22:  # another of its kind
            solid = [i for i in range(at, min(at + 8, len(found))) if not found[i].isspace()]
            if solid:
                found[solid[0]] = _other_word(rng, found[solid[0]])
        elif how < 0.34:
            del found[at : at + rng.choice([1, 1, 1, 2, 4, 20])]
        elif how < 0.44:
            found.insert(at, " " + _token(rng) + " ")
        elif how < 0.54:  # a token from elsewhere in the text
            found[at] = rng.choice(found)
        elif how < 0.62:  # two change places
            other = rng.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        elif how < 0.72:  # a part again, elsewhere
            size = rng.choice([1, 3, 8, 30])
            put = rng.randrange(len(found))
            found[put:put] = found[at : at + size]
        elif how < 0.82:  # a part of another text
            other_pieces = pieces(others()) or [""]
            begin = rng.randrange(len(other_pieces))
            found[at : at + rng.choice([0, 0, 5, 100_000])] = other_pieces[begin : begin + rng.choice([1, 5, 40, 100_000])]
        elif how < 0.88:
            found[at] = found[at] + rng.choice(ODD)
        elif how < 0.93:
            found[at] = _nested(rng, found[at])
        elif how < 0.96:
            found[at] = _many(rng, "".join(found[at : at + rng.choice([1, 4, 12])]))
        elif how < 0.98:  # everything on one line, or a line for each token
            joint = rng.choice([" ", "\n", "\r\n"])
            found = [joint if piece.isspace() else piece for piece in found if not piece.startswith("#")]
        else:
            found[at] = rng.choice(["a", "9", "#", "é", " ", "\n"]) * rng.choice([100, 5000, 100_000])
        if not found:
            found = [""]
    return "".join(found)[:MAX_LENGTH]


def grown(rng: random.Random) -> str:
    """A text in which one thing is very often there, or nests deeply, or doubles."""
    n = rng.choice([3, 10, 30, 100, 300, 1000, 3000])
    op = rng.choice(["conv_3x3", "skip", "relu", "sep_3x3", "down", "norm", "conv_3"])
    name = rng.choice(["x", "a_rather_long_name_of_a_value_", "é"])
    small = min(n, 60)
    before, inside = "", ""
    kind = rng.randrange(14)
    if kind == 0:
        inside = "\n".join(
            [f"{name}0 = {op}(c3)", *(f"{name}{i} = {op}({name}{i - rng.randint(1, min(i, 3))})" for i in range(1, n))]
        )
    elif kind == 1:
        inside = f"x = skip(c3) repeat {n} {{ x = {op}(x) }}"
    elif kind == 2:
        inside = "x = skip(c3) " + f"repeat {rng.choice([2, 3, 10])} {{ " * small + f"x = {op}(x)" + " }" * small
    elif kind == 3:
        before = "op a0(x) = skip(x)\n" + "".join(f"op a{i}(x) = add(a{i - 1}(x), a{i - 1}(x))\n" for i in range(1, small))
        inside = f"x = a{small - 1}(c3)"
    elif kind == 4:
        before = "block b0(x) -> (y) { y = conv_3x3(x) }\n" + "".join(
            f"block b{i}(x) -> (y) {{ a = b{i - 1}(x) y = b{i - 1}(a) }}\n" for i in range(1, small)
        )
        inside = f"x = b{small - 1}(c3)"
    elif kind == 5:
        inside = "let d0 = 2 " + " ".join(f"let d{i} = d{i - 1} {rng.choice('+*-')} d{i - 1}" for i in range(1, small))
        inside += f" x = conv(c3, k=d{small - 1})"
    elif kind == 6:
        holes = rng.choice(["?({})", "?({}) * 1"]).format(
            " | ".join(rng.choice([op, "skip", "conv_1x1"]) for _ in range(min(n, 100)))
        )
        inside = "\n".join(f"x{i} = {holes}(c3)" for i in range(rng.choice([1, 5, 40])))
    elif kind == 7:
        inside = " ".join(f"let d{i} = ?(0..{rng.choice([1, 3])})" for i in range(small)) + " x = skip(c3) "
        inside += " ".join(f"repeat d{i} {{ x = {op}(x) }}" for i in range(small))
    elif kind == 8:
        inside = f"x = {rng.choice(['sum', 'add', 'concat', 'psum', 'cat'])}({', '.join(['c3'] * n)})"
    elif kind == 9:
        before = f"choice c = {' | '.join(f'op_{i}' for i in range(n))}\n"
        inside = "x = ?c(c3) y = ?c(c3) z = distinct ?c(c3)"
    elif kind == 10:
        inside = "output " + ", ".join(f"p{i} = c3" for i in range(3, 3 + n))
    elif kind == 11:
        inside = f"x = {_nested(rng, 'c3')}"
    elif kind == 12:
        inside = f"shared f(x, y) = {op}(add(x, y)) x = f(c3, c3) " + " ".join(
            f"x = f(x, {rng.choice(['x', 'c3'])})" for _ in range(n)
        )
    else:
        before = "".join(f"op o{i}(x, k={i}) = conv(x, k=k)\n" for i in range(n))
        inside = " ".join(f"x{i} = o{i}(c3)" for i in range(0, n, 3)) + " x = o0(c3)"
    layer = rng.choice(["conv_3x3", "skip", f"conv_3x3 * {n}", " -> ".join(["relu"] * n), "?(conv_3x3 | skip) * ?(1..3)"])
    text = (
        f"{before}decoder d {{\n  input c3\n  fpn(width=64, norm=bn) {{\n    {inside}\n    output p3 = x\n  }}\n"
        f"  head(width=64, norm=gn) {{ {layer} }}\n  predict fcos\n}}\n"
    )
    return text[:MAX_LENGTH]


def text(number: int) -> str:
    """The text of a case: some grow, some are sentences of the grammar, half of the others are changed gently."""
    rng = random.Random(f"fuzz {number}")
    kind = rng.random()

    def right() -> str:
        return random_decoders.text(rng.randrange(100_000)) if rng.random() < 0.4 else rng.choice(seeds())

    if kind < 0.05:
        return grown(rng) if rng.random() < 0.6 else mutated(rng, grown(rng), right)
    if kind < 0.15:
        made = grammar().walk(rng, rng.randint(8, 30), rng.choice(["root", "root", "decoder", "op-def", "block-def"]))[
            :MAX_LENGTH
        ]
        return made if rng.random() < 0.6 else mutated(rng, made, right)
    if kind < 0.20:
        return right()
    return gently(rng, right()) if kind < 0.60 else mutated(rng, right(), right)
