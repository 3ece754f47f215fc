"""Index lists as the NAS-FCOS code publishes them, as `.nas` text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nasdsl.decoder import Decoder, loads
from nasdsl.semantics.files import read_source

FPN_OPS = ("sep_3x3", "sep_3x3_d3", "sep_5x5_d6", "skip", "dconv_3x3")
"""The paper's Table 1, in the order of its ids."""

FPN_AGGREGATIONS = ("psum", "cat")

HEAD_OPS = ("conv_1x1", "conv_3x3", "sep_3x3", "sep_3x3_d3", "skip", "dconv_3x3")

FCOS_HEAD = (1, 1, 1, 1)
"""The original head: four 3x3 convolutions."""

_INPUTS = ("c2", "c3", "c4", "c5")
_OUTPUTS = ("p5", "p4", "p3")


def nas_fcos_text(
    fpn: Sequence[Sequence[int]], head: Sequence[int] | None = None, share: int = 0, width: int = 256, name: str = "nas_fcos"
) -> str:
    """The text of a published index list; see `from_nas_fcos`."""
    blocks = _blocks(fpn)
    values = [*_INPUTS, *(f"x{t}" for t in range(1, len(blocks) + 1))]
    lines = []
    for t, (in1, in2, op1, op2, agg) in enumerate(blocks, 1):
        lines.append(f"    x{t} = {FPN_AGGREGATIONS[agg]}({FPN_OPS[op1]}({values[in1]}), {FPN_OPS[op2]}({values[in2]}))")
    outputs = _output_blocks(blocks)
    chain = " -> ".join(HEAD_OPS[i] for i in _head(FCOS_HEAD if head is None else head))
    if not 0 <= share <= len(FCOS_HEAD if head is None else head):
        raise ValueError(f"share is {share}; expected 0 to {len(FCOS_HEAD if head is None else head)}")
    bound = ", ".join(f"{p} = x{t}" for p, t in zip(_OUTPUTS, outputs, strict=True))
    return "\n".join(
        [
            f"decoder {name} {{",
            f"  input {', '.join(_INPUTS)}",
            "",
            f"  fpn(width={width}, norm=bn) {{",
            *lines,
            f"    output {bound}",
            "    merge dangling into p3, p4, p5",
            "    output p6 = down(p5), p7 = down(relu(p6))",
            "  }",
            "",
            f"  head(width={width}, norm=gn, share={share}) {{",
            f"    {chain}",
            "  }",
            "",
            "  predict fcos(centerness=cls)",
            "}",
            "",
        ]
    )


def from_nas_fcos(
    fpn: Sequence[Sequence[int]], head: Sequence[int] | None = None, share: int | Sequence[int] = 0, width: int = 256
) -> Decoder:
    """A decoder from the index lists of the NAS-FCOS code.

    Args:
        fpn: blocks ``[in1, in2, op1, op2, agg]``: inputs count C2-C5 as 0-3 and then the blocks; ops and aggregations
            count as in `FPN_OPS` and `FPN_AGGREGATIONS`.
        head: layers, counted as in `HEAD_OPS`; None is FCOS's own four convolutions.
        share: index of the first layer whose weights all levels share; the published ``[0]`` is taken as 0.
        width: channels of fpn and head.

    The outputs are the last three blocks that no block reads, in their order P5, P4, P3, as the published code has it
    (section 3.2.1 of the paper takes the last three blocks whatever reads them; where these are unread, as in the
    published decoder, the two agree).

    Raises:
        ValueError: an index that means nothing, or fewer than three unread blocks (the published code rejects these).
    """
    if not isinstance(share, int):
        if len(share) != 1:
            raise ValueError(f"share is {list(share)}; expected one index")
        share = share[0]
    return loads(nas_fcos_text(fpn, head, share, width), "<nas-fcos>")


class Lists(NamedTuple):
    """Index lists taken apart: blocks of the FPN, layers of the head (None: not given), sharing index."""

    fpn: list[list[int]]
    head: list[int] | None
    share: int


def split_lists(value: object) -> Lists:
    """Take apart a list as it is published: blocks, each by itself or in a list of its own, then perhaps ``[share]`` and
    the head: ``[[[3, 3, 4, 4, 1]], …, [0], [5, 1, 5, 0, 4, 4]]``.

    Raises:
        ValueError: it is no such list.
    """
    expected = "expected a list of blocks [in1, in2, op1, op2, agg], then perhaps [share] and the head's list"
    if not isinstance(value, list) or not value:
        raise ValueError(f"{_short(value)} is no list of blocks; {expected}")
    fpn: list[list[int]] = []
    rest: list[list[int]] = []
    for place, item in enumerate(value):
        inner = item[0] if isinstance(item, list) and len(item) == 1 and isinstance(item[0], list) else item
        if not isinstance(inner, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in inner):
            raise ValueError(f"item {place} is {_short(item)}; {expected}")
        if len(inner) == 5 and not rest:
            fpn.append(inner)
        else:
            rest.append(inner)
    if len(rest) > 2 or (rest and len(rest[0]) != 1):
        raise ValueError(f"{_short(rest[0] if len(rest) < 3 else rest)} follows the blocks; {expected}")
    return Lists(fpn, rest[1] if len(rest) > 1 else None, rest[0][0] if rest else 0)


def read_config(path: str | Path) -> str:
    """The `.nas` text of a YAML configuration file of the NAS-FCOS code.

    Read are ``SEARCH.DECODER.CONFIG`` (the lists), ``SEARCH.DECODER.AGG_SIZE`` (the width, 256 where it is missing) and
    ``MODEL.RETINANET_ON``, for which the decoder predicts as RetinaNet does, with nine anchors.

    Raises:
        UnreadableFile: the file cannot be read.
        ValueError: it is no YAML, or lacks the lists, or they mean nothing.
    """
    import yaml

    source = read_source(path)
    try:
        config = yaml.safe_load(source.text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ValueError(f"{source.name}{where}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None

    def entry(*keys: str) -> object:
        at: object = config
        for key in keys:
            at = at.get(key) if isinstance(at, dict) else None
        return at

    lists = entry("SEARCH", "DECODER", "CONFIG")
    if lists is None:
        raise ValueError(f"{source.name}: no SEARCH.DECODER.CONFIG in it, where this family keeps its lists")
    if isinstance(lists, str):
        try:
            lists = json.loads(lists.replace("(", "[").replace(")", "]"))
        except ValueError:
            raise ValueError(f"{source.name}: SEARCH.DECODER.CONFIG is no list: {_short(lists)}") from None
    width = entry("SEARCH", "DECODER", "AGG_SIZE")
    width = 256 if width is None else width
    if not isinstance(width, int) or isinstance(width, bool):
        raise ValueError(f"{source.name}: SEARCH.DECODER.AGG_SIZE is {_short(width)}; expected a number of channels")
    parts = split_lists(lists)
    text = nas_fcos_text(parts.fpn, parts.head, parts.share, width)
    if entry("MODEL", "RETINANET_ON") is True:
        text = text.replace("predict fcos(centerness=cls)", "predict retinanet(anchors=9)")
    loads(text, source.name)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _blocks(fpn: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int, int]]:
    blocks = []
    for t, block in enumerate(fpn, 1):
        if len(block) != 5 or not all(isinstance(i, int) and not isinstance(i, bool) for i in block):
            raise ValueError(f"block {t} is {list(block)}; expected five integers [in1, in2, op1, op2, agg]")
        pool = len(_INPUTS) + t - 1
        for what, index, count in zip(
            ("in1", "in2", "op1", "op2", "agg"), block, (pool, pool, len(FPN_OPS), len(FPN_OPS), len(FPN_AGGREGATIONS)),
            strict=True,
        ):  # fmt: skip
            if not 0 <= index < count:
                raise ValueError(f"block {t}: {what} is {index}; expected 0 to {count - 1}")
        in1, in2, op1, op2, agg = block
        blocks.append((in1, in2, op1, op2, agg))
    return blocks


def _output_blocks(blocks: Sequence[tuple[int, int, int, int, int]]) -> list[int]:
    """Numbers of the last three blocks that no block reads."""
    read = {i - len(_INPUTS) + 1 for block in blocks for i in block[:2]}
    unread = [t for t in range(1, len(blocks) + 1) if t not in read]
    if len(unread) < len(_OUTPUTS):
        raise ValueError(f"only {len(unread)} blocks are read by no other; P5, P4 and P3 need three")
    return unread[-len(_OUTPUTS) :]


def _head(head: Sequence[int]) -> Sequence[int]:
    for place, index in enumerate(head):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(HEAD_OPS):
            raise ValueError(f"head layer {place} is {index}; expected 0 to {len(HEAD_OPS) - 1}")
    if not head:
        raise ValueError("the head has no layers")
    return head
