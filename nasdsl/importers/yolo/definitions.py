"""Ops and blocks in the language for the modules of model files.

They are written from the papers: cross-stage partial networks (C3: arXiv:1911.11929), spatial pyramid pooling (SPPF:
arXiv:1406.4729, three pools of one size in a row in the place of three sizes), and aggregation of all depths (C2f, C3k2: as
ELAN, arXiv:2211.04800).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple


class Definition(NamedTuple):
    """A definition, and the names of those that it calls."""

    text: str
    calls: tuple[str, ...] = ()


def _split_block(name: str, unit: str, calls: str) -> Definition:
    """Half of the channels go through units in a row; what each gives is kept and concatenated."""
    text = f"""block {name}(x, width=width, share=0.5, n=1) -> (y) {{
  let inner = share * width
  a, b = split(conv_1x1(x, width=2 * inner))
  z = concat(a, b)
  repeat n {{
    b = {unit}
    z = concat(z, b)
  }}
  y = conv_1x1(z)
}}"""
    return Definition(text, (calls,))


def _partial_block(name: str, unit: str, calls: str, count: int) -> Definition:
    """One half of the channels goes through units in a row, the other around them."""
    text = f"""block {name}(x, width=width, share=0.5, n={count}) -> (y) {{
  let inner = share * width
  a = conv_1x1(x, width=inner)
  repeat n {{ a = {unit} }}
  y = conv_1x1(concat(a, conv_1x1(x, width=inner)))
}}"""
    return Definition(text, (calls,))


def _all() -> dict[str, Definition]:
    found = {
        "conv_s2": Definition("op conv_s2(x, width=width, k=3) = conv(x, k=k, stride=2)"),
        "sppf": Definition(
            """block sppf(x, width=width, inner=width, k=5) -> (y) {
  a = conv_1x1(x, width=inner)
  b = pool(a, k=k, kind=max)
  c = pool(b, k=k, kind=max)
  d = pool(c, k=k, kind=max)
  y = conv_1x1(concat(a, b, c, d))
}"""
        ),
    }
    for end, add in (("", "{}"), ("_add", "add(x, {})")):
        # Two convolutions: 3x3 and 3x3, 1x1 and 3x3, or through fewer channels.
        found[f"pair{end}"] = Definition(f"op pair{end}(x, width=width) = {add.format('conv_3x3(conv_3x3(x))')}")
        found[f"point_pair{end}"] = Definition(f"op point_pair{end}(x, width=width) = {add.format('conv_3x3(conv_1x1(x))')}")
        found[f"bottleneck{end}"] = Definition(
            f"op bottleneck{end}(x, width=width, inner=width) = {add.format('conv_3x3(conv_3x3(x, width=inner))')}"
        )
        found[f"c3{end}"] = _partial_block(f"c3{end}", f"point_pair{end}(a, width=inner)", f"point_pair{end}", 1)
        found[f"c3k{end}"] = _partial_block(f"c3k{end}", f"pair{end}(a, width=inner)", f"pair{end}", 2)
        found[f"c2f{end}"] = _split_block(f"c2f{end}", f"pair{end}(b, width=inner)", f"pair{end}")
        half = f"bottleneck{end}(b, width=inner, inner=inner / 2)"
        found[f"c3k2{end}"] = _split_block(f"c3k2{end}", half, f"bottleneck{end}")
        found[f"c3k2_c3k{end}"] = _split_block(f"c3k2_c3k{end}", f"c3k{end}(b, width=inner)", f"c3k{end}")
    return found


DEFINITIONS: Final = _all()
"""Definitions by name; ``_add`` adds the input of each unit to its result."""


def definitions_of(names: Iterable[str]) -> list[str]:
    """The texts of these definitions and of all that they call, those that are called first."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for called in DEFINITIONS[name].calls:
            add(called)
        found.setdefault(name)

    for name in sorted(names):
        add(name)
    return [DEFINITIONS[name].text for name in found]
