"""Texts as they are while somebody edits them: typed, deleted, pasted, damaged, and taken back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import random_decoders
from zoo_files import ZOO

ROOT = Path(__file__).parents[1]

TYPED = (
    "    q = sum(conv_3x3(c3, width=width), resize(c4, to=c3, mode=nearest))\n",
    "  repeat t in 1..3 {\n x[t] = skip(c3)\n }\n",
    "op mine(x, k=3) = conv(x, k=k)\n",
    "  shared own(x) = conv_3x3(x)\n",
    "choice op = conv_3x3 | sep_3x3\n",
    "  detector(size=240x320)\n",
    "  let k = ?(conv_1x1 | conv_3x3) # chosen\n",
    "  require latency <= 15ms on torch at 240x320\n",
)
"""What is typed, character by character."""

SIGNS = ("(", ")", "{", "}", "[", "]", ",", ";", "=", "->", "..", "?", "|", "+", "*", ":", "#", "\n", "\r\n", '"', "'", " ")
FOREIGN = ("//", "=>", "\u2192", "\x00", "\u201cx\u201d", "\u00e9", "1x", "0.5.5", "9" * 30)
WORDS = ("detector", "shared", "on", "choice", "repeat", "output", "in", "?\n", "shared\n", "detector\n(", "\n\n", "x x x x")
GOES_ON = ("\n,", "\n(", "\n[1]", "\n->", "\nat 1x1", "\ndistinct")
TOO_MUCH = ("(" * 99, "{" * 101, "a" + "+1" * 101)

DAMAGE = (*SIGNS, *FOREIGN, *WORDS, *GOES_ON, *TOO_MUCH)
"""What is put in anywhere."""


def texts() -> dict[str, str]:
    """The texts that are edited: the zoo with its spaces, those of the language's tests, and random decoders."""
    paths = [
        *ZOO,
        *sorted((ROOT / "genotypes" / "spaces").glob("*.nas")),
        *sorted((ROOT / "tests/data/language").glob("*.nas")),
    ]
    found = {f"{path.parent.name}/{path.stem}": path.read_text(encoding="utf-8") for path in paths}
    return found | {f"random {seed}": random_decoders.text(seed) for seed in range(4)}


def versions(text: str, seed: int, count: int) -> Iterator[str]:
    """So many versions of a text, each made of the one before it; now and then one is as it was at first."""
    rng = random.Random(seed)
    first, typing = text, ""
    at = 0
    for _ in range(count):
        if typing:
            many = rng.choice((1, 1, 2, 9))
            text, at, typing = text[:at] + typing[:many] + text[at:], at + many, typing[many:]
            yield text
            continue
        at = rng.randint(0, len(text))
        what = rng.random()
        if what < 0.15:
            typing = rng.choice(TYPED)
            at = text.rfind("\n", 0, at) + 1
        elif what < 0.45:
            text = text[:at] + rng.choice(DAMAGE) + text[at:]
        elif what < 0.65:
            text = text[:at] + text[at + rng.choice((1, 1, 3, 20, 90)) :]
        elif what < 0.8:  # a piece of the text, somewhere else
            start = rng.randint(0, len(first))
            text = text[:at] + first[start : start + rng.choice((5, 40, 200))] + text[at:]
        elif what < 0.9:  # two places at once
            lines = text.split("\n")
            for number in rng.sample(range(len(lines)), min(2, len(lines))):
                lines[number] = rng.choice((lines[number] + " ", "", lines[number].replace("3", "5"), "  " + lines[number]))
            text = "\n".join(lines)
        else:
            text = first
        yield text
