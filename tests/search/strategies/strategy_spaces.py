"""Spaces that the tests of the strategies share."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nasdsl.spaces import Space, load_space, loads_space

SPACES = Path(__file__).resolve().parents[3] / "genotypes" / "spaces"

BODY = """
  fpn(width=16, norm=bn) {{ {fpn} }}
  head(width=16, norm=bn, share={share}) {{ {head} }}
  predict fcos(centerness=cls)
}}
"""

NESTED = """
choice conv = conv_1x1 | conv_3x3 | sep_3x3
choice op   = skip | ?conv | ?(down_max | sep_5x5)
choice agg  = psum | cat
decoder nested { input c3, c4
  let tied = ?conv
""" + BODY.format(
    fpn="repeat t in 1..2 { x[t] = ?agg(?op(?pool), ?op(?pool)) }; output p3 = x1, p4 = x2",
    share="?(0..2)",
    head="?(skip | ?conv) -> tied",
)

TINY = (
    NESTED.split("decoder")[0]
    + "decoder tiny { input c3, c4\n"
    + BODY.format(fpn="x1 = ?agg(?op(?pool), ?op(c3)); output p3 = x1", share="?(0..1)", head="?(skip | ?conv)")
)

BOUNDED = NESTED.replace("decoder nested { input c3, c4", "decoder bounded { input c3, c4\n  require params <= 40K")

SMALL = "choice op = skip | conv_1x1 | conv_3x3 | sep_3x3\ndecoder small { input c3\n" + BODY.format(
    fpn="x = skip(c3); repeat 4 { x = ?op(x) }; output p3 = x", share="0", head="skip"
)

SCARCE = BOUNDED.replace("decoder bounded", "decoder scarce").replace("params <= 40K", "params <= 22400")
"""About 1 % of the fillings keep the requirement."""

TEN = "choice op = conv_1x1 | conv_3x3 | sep_3x3 | sep_3x3_d3 | sep_5x5\ndecoder ten { input c3\n" + BODY.format(
    fpn="output p3 = ?op(c3)", share="0", head="?(skip | conv_1x1)"
)

DEPTH = "choice op = conv_1x1 | conv_3x3 | relu\ndecoder depth { input c3\n" + BODY.format(
    fpn="let d = ?(0..2); x = c3; repeat d { x = ?op(x) }; output p3 = x",
    share="0",
    head="conv_1x1 * ?(1..2) -> ?(relu -> ?op | skip)",
)

CLOSED = "decoder closed { input c3\n" + BODY.format(fpn="output p3 = c3", share="0", head="skip")

TEXTS = {
    "nested": NESTED,
    "tiny": TINY,
    "bounded": BOUNDED,
    "scarce": SCARCE,
    "small": SMALL,
    "ten": TEN,
    "closed": CLOSED,
    "depth": DEPTH,
}


@cache
def space(name: str) -> Space:
    if name == "paper":
        return load_space(SPACES / "nas_fcos_fpn.nas")
    return loads_space(TEXTS[name])


def additive(indices: tuple[int, ...]) -> float:
    """A synthetic reward, lowest at all zeros."""
    return float(sum((place * 7 + index * 3) % 5 + index for place, index in enumerate(indices)))
